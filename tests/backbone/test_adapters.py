"""Trained tensors put on and taken off: equal to PEFT's own model, and no trace afterwards."""

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model

from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.engines.full_prompts import FullPromptEngine
from palign_bench.backbone.engines.shared_prefix import SharedPrefixEngine
from palign_bench.backbone.loading.weights import LoadedModel
from palign_bench.backbone.local import LocalBackbone
from palign_bench.backbone.parts.adapters import (
    VIRTUAL,
    adapter_tensors,
    applied_adapter,
    full_tensors,
    leaving_no_trace,
    trainable_copies,
)
from palign_bench.questionnaire.inventory import Inventory
from tests.protocols import CORRECTED

IDS = torch.arange(5, 45).view(2, 20)
SETTINGS = {"peft_type": "LORA", "r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "down_proj"]}


def logits(model: torch.nn.Module, **inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(**(inputs or {"input_ids": IDS})).logits


@pytest.fixture
def lora(tiny: LoadedModel) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """LoRA tensors that do something, and the logits of PEFT's own model with them."""
    with leaving_no_trace(tiny.model):
        config = LoraConfig(r=4, lora_alpha=16, target_modules=SETTINGS["target_modules"], task_type="CAUSAL_LM")
        model = get_peft_model(tiny.model, config)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(name)))
        return adapter_tensors(model), logits(model.eval())


def test_applied_lora_is_peft_s_model_and_comes_off(tiny: LoadedModel, lora: tuple) -> None:
    tensors, expected = lora
    bare = logits(tiny.model)
    with applied_adapter(tiny.model, tensors, "peft", SETTINGS):
        assert torch.equal(logits(tiny.model), expected)
    assert torch.equal(logits(tiny.model), bare)
    assert not torch.equal(bare, expected)


def test_applied_weights_are_swapped_not_copied(tiny: LoadedModel) -> None:
    bare, pointers = logits(tiny.model), [p.data_ptr() for p in tiny.model.parameters()]
    weights = {name: tensor + 0.01 for name, tensor in full_tensors(tiny.model).items()}
    with applied_adapter(tiny.model, weights, "full", None):
        assert {p.data_ptr() for p in tiny.model.parameters()} == {w.data_ptr() for w in weights.values()}
        assert not torch.equal(logits(tiny.model), bare)
    assert [p.data_ptr() for p in tiny.model.parameters()] == pointers
    assert torch.equal(logits(tiny.model), bare)


@pytest.mark.parametrize("kind", ["peft", "full"])
def test_tensors_of_another_model_are_refused(tiny: LoadedModel, lora: tuple, kind: str) -> None:
    tensors = {"peft": lora[0], "full": full_tensors(tiny.model)}[kind]
    tensors = dict(list(tensors.items())[1:])
    bare = logits(tiny.model)
    with pytest.raises(ValueError, match="do not fit"), applied_adapter(tiny.model, tensors, kind, SETTINGS):
        pass
    assert torch.equal(logits(tiny.model), bare)


def test_leaving_no_trace_undoes_everything_also_after_an_exception(tiny: LoadedModel) -> None:
    model = tiny.model
    bare, config = logits(model), model.config.to_dict()
    with pytest.raises(RuntimeError), leaving_no_trace(model):
        trainable_copies(model)
        model.train()
        model.forward = None
        model.config.use_cache = False
        model.model.layers[0].mlp = torch.nn.Identity()
        model.register_forward_pre_hook(lambda *_: None)
        model.generation_config.eos_token_id = 77
        for parameter in model.parameters():
            parameter.data.zero_()
        raise RuntimeError
    assert torch.equal(logits(model), bare)
    assert model.config.to_dict() == config
    assert model.generation_config.eos_token_id != 77
    assert not model.training
    assert not model._forward_pre_hooks


def test_soft_prompts_answer_alike_in_every_engine_batch_and_in_peft(tiny: LoadedModel, inventory: Inventory) -> None:
    """PEFT lays out [virtual][pad][prompt], which answers wrongly in a left-padded batch; ours must not."""
    with leaving_no_trace(tiny.model):
        torch.manual_seed(0)
        peft = get_peft_model(tiny.model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=6)).eval()
        virtual = peft.get_prompt(batch_size=1)[0].detach().clone()
    alignment = Alignment(
        adapter={VIRTUAL: virtual}, adapter_kind="peft", adapter_settings={"peft_type": "PROMPT_TUNING"}
    )
    items = inventory.select(inventory.held_out[:12])
    engines = [
        engine(tiny.model, tiny.tokenizer, positions=positions)
        for engine in (SharedPrefixEngine, FullPromptEngine)
        for positions in (1, 100_000)
    ]
    tables = []
    for engine in engines:
        backbone = LocalBackbone(tiny, CORRECTED, engine)
        sheet = backbone.answer(alignment, items)
        assert backbone.virtual is None
        tables.append(torch.tensor([sheet.log_probs[item.number] for item in items]))
    for table in tables[1:]:
        torch.testing.assert_close(table, tables[0], atol=1e-4, rtol=1e-4)
    bare = LocalBackbone(tiny, CORRECTED).answer(Alignment(), items)
    assert not torch.allclose(torch.tensor([bare.log_probs[item.number] for item in items]), tables[0], atol=1e-2)


def test_a_soft_prompt_is_read_before_free_text_too(tiny: LoadedModel) -> None:
    backbone = LocalBackbone(tiny, CORRECTED)
    torch.manual_seed(0)
    alignment = Alignment(
        adapter={VIRTUAL: torch.randn(6, 64)}, adapter_kind="peft", adapter_settings={"peft_type": "PROMPT_TUNING"}
    )
    bare = backbone.generate(Alignment(), "You are kind.", "Who are you?", 12, 0)
    assert backbone.generate(alignment, "You are kind.", "Who are you?", 12, 0) != bare
    assert backbone.generate(Alignment(), "You are kind.", "Who are you?", 12, 0) == bare
