"""Steering: exactly nothing at zero, exactly W_o d otherwise, and gone afterwards."""

import pytest
import torch

from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.anatomy import Anatomy
from palign_bench.backbone.local import LocalBackbone
from palign_bench.backbone.parts.heads import shifted_heads
from tests.protocols import AS_RELEASED, CORRECTED


def random_shifts(model, scale: float, seed: int = 0) -> torch.Tensor:
    anatomy = Anatomy(model)
    shape = len(anatomy.layers), anatomy.heads * anatomy.head_width
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(40, 70)[None]).logits


def test_alpha_zero_is_the_bare_model_bit_for_bit(smollm2, inventory):
    items = inventory.select(inventory.held_out[:5])
    backbone = LocalBackbone(smollm2, CORRECTED)
    shifts = 0.0 * random_shifts(smollm2.model, 1.0)
    bare = backbone.answer(Alignment(), items).log_probs
    assert backbone.answer(Alignment(head_shifts=shifts), items).log_probs == bare


def test_a_shift_of_the_input_is_an_output_bias(tiny):
    shifts = random_shifts(tiny.model, 0.7)
    with shifted_heads(Anatomy(tiny.model), shifts):
        shifted = logits(tiny.model)
    for projection, shift in zip(Anatomy(tiny.model).output_projections, shifts, strict=True):
        projection.bias = torch.nn.Parameter(projection.weight @ shift)
    assert torch.allclose(shifted, logits(tiny.model), atol=1e-4)


def test_the_model_is_bare_again_also_after_an_exception(tiny):
    bare = logits(tiny.model)
    with (
        pytest.raises(RuntimeError, match="inside"),
        shifted_heads(Anatomy(tiny.model), random_shifts(tiny.model, 1.0)),
    ):
        assert not torch.equal(logits(tiny.model), bare)
        raise RuntimeError("inside")
    assert torch.equal(logits(tiny.model), bare)


def test_shifts_act_at_every_position_of_prompt_and_answer(tiny, inventory):
    """Both engines see the shift in the shared prefix too, and while decoding."""
    items = inventory.select(inventory.held_out[:6])
    alignment = Alignment(head_shifts=random_shifts(tiny.model, 0.5))
    for protocol in (CORRECTED, AS_RELEASED):
        shared, whole = (LocalBackbone(tiny, protocol, e) for e in ("shared_prefix", "full_prompts"))
        first, second = (b.answer(alignment, items) for b in (shared, whole))
        bare = shared.answer(Alignment(), items)
        if protocol.reading.generates:
            assert first.texts == second.texts != bare.texts
        else:
            pairs = [(first.log_probs[i.number], second.log_probs[i.number]) for i in items]
            assert max(abs(a - b) for one, two in pairs for a, b in zip(one, two, strict=True)) < 1e-4
            assert first.log_probs != bare.log_probs


def test_a_shift_of_another_models_shape_is_refused(tiny):
    with pytest.raises(ValueError, match="do not fit"), shifted_heads(Anatomy(tiny.model), torch.zeros(3, 64)):
        pass


def test_head_activations_are_the_inputs_of_o_proj_at_the_last_token(tiny):
    backbone = LocalBackbone(tiny, CORRECTED)
    dialogues = [("S", "a question", "A"), ("S", "another, longer question", "E"), ("S", "x", "A")]
    together = backbone.head_activations(dialogues)
    assert together.shape == (3, 2, 4, 16)
    alone = torch.cat([backbone.head_activations([dialogue]) for dialogue in dialogues])
    assert torch.allclose(together, alone, atol=1e-5)
    # The oracle: output of the last layer's o_proj = W_o · activations.
    captured: list[torch.Tensor] = []
    handle = Anatomy(tiny.model).output_projections[-1].register_forward_hook(lambda m, i, o: captured.append(o[0, -1]))
    backbone.head_activations([dialogues[0]])
    handle.remove()
    weight = Anatomy(tiny.model).output_projections[-1].weight
    assert torch.allclose(weight @ together[0, -1].flatten(), captured[0], atol=1e-5)
