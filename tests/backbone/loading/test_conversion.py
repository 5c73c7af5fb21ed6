"""The embedded weights become a folder once, every tensor of theirs kept."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from palign_bench.backbone.loading.settings import package_path
from palign_bench.backbone.loading.sources import EMBEDDED, converted_package


@pytest.mark.slow
def test_conversion_keeps_every_tensor_is_cached_whole_and_done_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALIGN_CACHE_DIR", str(tmp_path))
    folder = converted_package(*EMBEDDED)
    path = package_path(*EMBEDDED)
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).state_dict()
    ours = load_file(folder / "model.safetensors")
    assert set(theirs) - set(ours) <= {"lm_head.weight"}  # tied to the embeddings
    for name, tensor in ours.items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, theirs[name]), name
    assert [each.name for each in folder.parent.iterdir()] == [folder.name]
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)  # a second conversion would call it
    assert converted_package(*EMBEDDED) == folder


def test_converted_folder_says_nothing_of_quantization(converted: Path) -> None:
    assert "quantization_config" not in json.loads((converted / "config.json").read_text())
    assert not list(converted.glob("*.bin"))


def test_converted_weights_are_what_the_gguf_package_reads(converted: Path) -> None:
    """A reader that shares no code with transformers; queries and keys are permuted in a GGUF, so not those."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    ours = load_file(converted / "model.safetensors")
    stored = {each.name: each for each in GGUFReader(package_path(*EMBEDDED)).tensors}
    for theirs, mine in (
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("blk.0.attn_v.weight", "model.layers.0.self_attn.v_proj.weight"),
        ("blk.17.ffn_down.weight", "model.layers.17.mlp.down_proj.weight"),
        ("blk.29.attn_output.weight", "model.layers.29.self_attn.o_proj.weight"),
        ("output_norm.weight", "model.norm.weight"),
    ):
        tensor = torch.from_numpy(dequantize(stored[theirs].data, stored[theirs].tensor_type).copy())
        assert torch.equal(tensor.view(ours[mine].shape), ours[mine]), theirs
