"""Whether a model's files hold every tensor that the model has, and no other of its modules.

transformers draws what is missing at random and leaves out what has no place, with a table on stderr: a model that
answers, and not the one that was asked for. Here that is an error of one line. Files are first read onto the meta
device, that is their headers alone: no values, no memory.
"""

from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, PreTrainedModel

from palign_bench.backbone.loading.settings import ModelError
from palign_bench.backbone.quiet import quiet

_CONSTANTS = ("masked_bias",)  # of early GPT-2 checkpoints: the same number in each of them


def check_files(place: str, revision: str | None) -> None:
    """Raise ModelError for a folder or hub name whose tensors are not those of its model, each in its shape."""
    try:
        with quiet("transformers"):
            load_whole(place, revision=revision, use_safetensors=True, device_map={"": "meta"})
    except RuntimeError as error:  # transformers tells which in a table of its own
        raise ModelError(
            f"model.name_or_path={place}: a tensor has another shape than the model's, or cannot be put together; is "
            "config.json that of these weights?"
        ) from error


def load_whole(place: str | Path, **options: Any) -> PreTrainedModel:
    """transformers' own `from_pretrained`. Raises ModelError where the files have tensors too few or too many.

    A tensor of a module that the model does not have at all (a value head beside a language model) does no harm.
    """
    loaded: Any = AutoModelForCausalLM.from_pretrained(place, output_loading_info=True, **options)
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        # transformers does not read all that PEFT writes: not DoRA's magnitudes, for one.
        remedy = "or merge the adapter with PEFT (merge_and_unload) and give the merged model"
        raise ModelError(
            f"model.name_or_path={place}: {_listed(missing)} cannot be read from its files, and would be drawn at "
            f"random; copy the folder again, {remedy if 'lora' in missing[0] else 'or give a model that is whole'}."
        )
    own = {name for name, _ in model.named_children()}
    beyond = [key for key in sorted(report["unexpected_keys"]) if key.split(".")[0] in own]
    if unused := [key for key in beyond if not key.endswith(_CONSTANTS)]:
        raise ModelError(
            f"model.name_or_path={place}: a model_type {model.config.model_type} of its config.json has no place for "
            f"{_listed(unused)}, which would be left out; is config.json that of these weights?"
        )
    whole: PreTrainedModel = model
    return whole


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more tensors"
