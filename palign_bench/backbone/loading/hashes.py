"""Hashes of files and of a tokenizer: what a cell's identity knows a model by."""

import hashlib
import json
import tempfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from palign_bench.backbone.loading.settings import ModelError

# Beside the weights: shapes, the ends of a text, which file holds which tensor, and how an adapter changes them.
_JSON_FILES = ("config.json", "generation_config.json", "model.safetensors.index.json", "adapter_config.json")


def hash_of_weights(path: Path) -> str:
    """SHA-256 of a model's or an adapter's folder, or of a file of weights. Raises ModelError for no safetensors."""
    if path.is_file():
        return hash_of_files([path])
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        raise ModelError(f"model.name_or_path={path}: no *.safetensors there; pickled weights are not loaded.")
    needed = "adapter_config.json" if (path / "adapter_config.json").exists() else "config.json"
    return hash_of_files([*(path / each for each in _JSON_FILES if each == needed or (path / each).exists()), *weights])


def hash_of_files(paths: Iterable[Path]) -> str:
    """SHA-256 over the files' names and contents, in this order."""
    return hashlib.sha256(json.dumps([[path.name, _hash_of_file(path)] for path in paths]).encode()).hexdigest()


def _hash_of_file(path: Path) -> str:
    state = path.stat()
    # Any write to the file changes its ctime, which no program can set back: a kept hash is that of this content.
    return _hash_of_content(path.resolve(), state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@lru_cache(maxsize=4096)
def _hash_of_content(path: Path, *state: int) -> str:
    """The hash of a file in this state; kept, since every job of a sweep asks for that of the same gigabytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of a freshly loaded tokenizer: vocabulary, merges, normalisation, added and special tokens."""
    if tokenizer.is_fast:
        content = tokenizer.backend_tokenizer.to_str()
    else:
        with tempfile.TemporaryDirectory() as folder:
            files = tokenizer.save_vocabulary(folder)
            content = hash_of_files(sorted(map(Path, files)))
    added = sorted((str(token), index) for token, index in tokenizer.get_added_vocab().items())
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return hashlib.sha256(json.dumps([content, added, special], sort_keys=True).encode()).hexdigest()
