"""The folders that are loaded, free to be changed."""

import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from palign_bench.backbone.loading.sources import EMBEDDED, converted_package
from tests.tiny import tiny_model, tiny_tokenizer


@pytest.fixture
def copied(tiny_folder: Path, tmp_path: Path) -> Path:
    """The tiny model's folder, free to be spoiled."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


@pytest.fixture(scope="module")
def converted() -> Path:
    """The embedded model as it is used, from the cache where it has been converted before."""
    return converted_package(*EMBEDDED)


@pytest.fixture
def adapter(tiny_folder: Path, tmp_path: Path) -> Path:
    """A PEFT folder whose LoRA changes the tiny model's query and output projections."""
    torch.manual_seed(0)
    wrapped = get_peft_model(tiny_model(tiny_tokenizer()), LoraConfig(r=2, target_modules=["q_proj", "o_proj"]))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    wrapped.peft_config["default"].base_model_name_or_path = str(tiny_folder)
    wrapped.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"
