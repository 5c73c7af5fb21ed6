"""An adapter that comes with palign_bench is merged into a package's weights, exactly, and is part of the identity."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from palign_bench.backbone.loading import identify, load
from palign_bench.backbone.loading.settings import ModelError, package_path, resolve_model
from palign_bench.settings import read_option


@pytest.fixture()
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("PALIGN_CACHE_DIR", str(tmp_path / "cache"))
    organism = resolve_model(read_option("model", "organism"))
    model = AutoModelForCausalLM.from_pretrained(package_path(organism["package"], organism["package_file"]))
    tuned = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    tuned.save_pretrained(tmp_path / "adapter")
    return {**organism, "name": "tuned", "dtype": "float32", "package_adapter": str(tmp_path / "adapter")}


def test_the_weights_are_the_sum(settings):
    loaded, base = load(settings).model, load({**settings, "package_adapter": None}).model
    config = LoraConfig.from_pretrained(settings["package_adapter"])
    kept = load_file(f"{settings['package_adapter']}/adapter_model.safetensors")
    for name in ("layers.0.self_attn.q_proj", "layers.3.mlp.down_proj"):
        a, b = (kept[f"base_model.model.model.{name}.lora_{letter}.weight"] for letter in "AB")
        expected = base.get_submodule(f"model.{name}").weight + config.lora_alpha / config.r * b @ a
        torch.testing.assert_close(loaded.get_submodule(f"model.{name}").weight, expected)
    again = load(settings).model  # from the cache
    for (name, value), other in zip(loaded.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(value, other), name


def test_the_adapter_is_a_part_of_the_identity(settings):
    with_adapter, without = (
        identify({**settings, "package_adapter": each})["weights_hash"] for each in (settings["package_adapter"], None)
    )
    assert with_adapter.endswith(f" on {without}")


def test_a_missing_adapter_is_refused_in_one_line(settings):
    with pytest.raises(ModelError, match=r"its adapter .* is missing"):
        load({**settings, "package_adapter": "organism/nowhere"})
