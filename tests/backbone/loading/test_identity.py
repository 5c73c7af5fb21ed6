"""Whatever changes a number changes the identity, and nothing else does."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from palign_bench.backbone import loading
from palign_bench.backbone.loading.identity import identify
from palign_bench.backbone.loading.settings import model_identity
from tests.backbone.loading.folders import of_folder, rewritten
from tests.tiny import tiny_model, tiny_tokenizer


def test_identity_changes_with_weights_template_and_dtype_and_not_with_the_place(copied: Path) -> None:
    settings = of_folder(copied)
    before = identify(settings)
    moved = copied.rename(copied.with_name("elsewhere"))
    settings = of_folder(moved)
    assert identify(settings) == before
    assert identify(settings | {"dtype": "bfloat16"}) != before
    tiny_model(tiny_tokenizer(), seed=1).save_pretrained(moved)
    other = identify(settings)
    assert other["weights_hash"] != before["weights_hash"]
    assert other["chat_template_hash"] == before["chat_template_hash"]
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = str(tokenizer.chat_template) + " "
    tokenizer.save_pretrained(moved)
    assert identify(settings)["chat_template_hash"] != before["chat_template_hash"]
    assert identify(settings)["weights_hash"] == other["weights_hash"]


def _swapped(folder: Path) -> None:
    """Two letters of the vocabulary change places."""
    document = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = document["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (_swapped, "tokenizer_hash"),
        (rewritten("tokenizer.json", '"add_prefix_space": false', '"add_prefix_space": true'), "tokenizer_hash"),
        (rewritten("tokenizer_config.json", '"pad_token": "<|pad|>"', '"pad_token": "<|end|>"'), "tokenizer_hash"),
        (rewritten("chat_template.jinja", "<|start|>assistant", "<|start|>model"), "chat_template_hash"),
        (rewritten("config.json", '"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'), "weights_hash"),
        (rewritten("generation_config.json", '"eos_token_id": 2', '"eos_token_id": 3'), "weights_hash"),
    ],
)
def test_every_file_that_changes_a_number_changes_the_identity(copied: Path, change: Any, key: str) -> None:
    before = identify(of_folder(copied))
    change(copied)
    after = identify(of_folder(copied))
    assert {each for each in before if before[each] != after[each]} == {key}


def test_a_file_written_anew_is_hashed_anew_even_with_its_old_size_and_time(copied: Path) -> None:
    before, times = identify(of_folder(copied)), (copied / "config.json").stat()
    rewritten("config.json", '"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05')(copied)
    os.utime(copied / "config.json", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (copied / "config.json").stat().st_size == times.st_size
    assert identify(of_folder(copied))["weights_hash"] != before["weights_hash"]


def test_an_adapters_identity_is_that_of_its_files_and_of_its_base(adapter: Path, copied: Path) -> None:
    rewritten(
        "adapter_config.json",
        json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"],
        str(copied),
    )(adapter)
    seen = [identify(of_folder(adapter))["weights_hash"], identify(of_folder(copied))["weights_hash"]]
    rewritten("adapter_config.json", '"lora_alpha": 8', '"lora_alpha": 16')(adapter)
    seen.append(identify(of_folder(adapter))["weights_hash"])
    tiny_model(tiny_tokenizer(), seed=1).save_pretrained(copied)
    seen.append(identify(of_folder(adapter))["weights_hash"])
    assert len(set(seen)) == 4
    anatomy = loading.anatomy_of(of_folder(adapter))
    assert (len(anatomy.layers), anatomy.heads) == (2, 4) and anatomy.model.device.type == "meta"


def test_a_cells_identity_holds_no_path(tiny_folder: Path) -> None:
    settings = of_folder(tiny_folder)
    assert str(tiny_folder) not in json.dumps(model_identity(settings, identify(settings)))
