"""Settings of a model folder, and ways to change what lies there."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from palign_bench.backbone.loading.settings import resolve_model
from palign_bench.settings import Settings, read_option

UP = "model.layers.1.mlp.up_proj.weight"


def settings_of(option: str, **changes: Any) -> Settings:
    return resolve_model(read_option("model", option) | changes)


def of_folder(folder: Path, **changes: Any) -> Settings:
    return settings_of("local", name_or_path=str(folder), **{"dtype": "float32", **changes})


def rewritten(name: str, old: str, new: str) -> Any:
    def rewrite(folder: Path) -> None:
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")

    return rewrite


def with_tensor(name: str, value: torch.Tensor | None, file: str = "model.safetensors") -> Any:
    """Leave this tensor out of a folder's file, or put another one there."""

    def spoil(folder: Path) -> None:
        tensors = {**load_file(folder / file), name: value}
        assert value is not None or name in load_file(folder / file)
        save_file({key: each for key, each in tensors.items() if each is not None}, folder / file, {"format": "pt"})

    return spoil
