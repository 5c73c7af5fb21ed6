"""What identifies a model: everything in its files that can change a number, known without loading its weights."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig
from transformers.utils import find_adapter_config_file

from palign_bench.backbone.chat_format import ChatFormat, ChatFormatError
from palign_bench.backbone.loading.hashes import hash_of_tokenizer, hash_of_weights
from palign_bench.backbone.loading.settings import (
    ModelError,
    check_settings,
    choose_device,
    choose_dtype,
    package_adapter,
    package_path,
)
from palign_bench.backbone.loading.sources import base_of, config_of, named_errors, tokenizer_of

RANDOM_RECIPE = "random-1"  # raise the number when other values are drawn for the same configuration


def identify(settings: Mapping[str, Any]) -> dict[str, str]:
    """What identifies the model that ``settings`` describe. Raises ModelError for one that cannot be had or read.

    ``weights_hash``: of the files on disk, of the package's file, or of the random recipe; of a hub model its commit;
    of an adapter its files and its base. ``tokenizer_hash``: of the tokenizer as it is loaded. ``chat_template_hash``:
    `ChatFormat.hash`. ``device_kind``, ``dtype``: as they will be used.
    """
    check_settings(settings)
    device = choose_device(settings["device"])
    tokenizer = tokenizer_of(settings)
    try:
        chat = ChatFormat(tokenizer)
    except ChatFormatError as error:
        raise ModelError(f"model={settings['name']}: {error}") from error
    return {
        "weights_hash": _weights_hash(settings),
        "tokenizer_hash": hash_of_tokenizer(tokenizer),
        "chat_template_hash": chat.hash,
        "device_kind": device.type,
        "dtype": str(choose_dtype(settings["dtype"], device)).removeprefix("torch."),
    }


def _weights_hash(settings: Mapping[str, Any]) -> str:
    if settings["weights"] == "random":
        recipe = f"{RANDOM_RECIPE}-{config_of(settings).to_json_string()}"
        return hashlib.sha256(recipe.encode()).hexdigest()
    if settings["weights"] == "package":
        path = package_path(settings["package"], settings["package_file"])
        adapter = package_adapter(settings)
        return hash_of_weights(path) if adapter is None else f"{hash_of_weights(adapter)} on {hash_of_weights(path)}"
    with named_errors(settings):
        source, revision = str(settings["name_or_path"]), settings.get("revision")
        base, base_revision = base_of(settings)
        of_base = _hash_of_place(base, base_revision)
        return of_base if base == source else f"{_hash_of_place(source, revision)} on {of_base}"


def _hash_of_place(place: str, revision: str | None) -> str:
    if Path(place).is_dir():
        return hash_of_weights(Path(place))
    if (found := find_adapter_config_file(place, revision=revision)) is not None:
        return hash_of_weights(Path(found).parent)
    commit = getattr(AutoConfig.from_pretrained(place, revision=revision), "_commit_hash", None)
    if commit is None:
        raise ModelError(f"model.name_or_path={place}: the hub tells no commit, so that its version cannot be known.")
    return f"hub:{place}@{commit}"
