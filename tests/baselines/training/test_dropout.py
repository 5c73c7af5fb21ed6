"""Dropout of the model's own, in whatever way the architecture keeps it."""

import pytest
import torch

from baselines.training.dropout import is_random, turn_dropout_off
from palign_bench.backbone.parts.adapters import leaving_no_trace
from tests.architectures import tiny_of

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]])


@pytest.mark.parametrize("name", ["biogpt", "gpt2", "gpt_bigcode", "opt", "seed_oss", "xglm"])
def test_it_is_found_by_what_it_does_and_turned_off_for_a_while(name: str) -> None:
    model = tiny_of(name)
    for _ in range(2):  # the second time as the first: nothing of it was kept
        with leaving_no_trace(model):
            assert is_random(model, IDS)
            turn_dropout_off(model)
            assert not is_random(model, IDS)
        assert not model.training


def test_layers_that_are_left_out_at_random_are_dropout_too() -> None:
    model = tiny_of("opt")
    with leaving_no_trace(model):
        turn_dropout_off(model)
        model.base_model.decoder.layerdrop = 0.5
        torch.manual_seed(0)
        assert any(is_random(model, IDS) for _ in range(8))
        turn_dropout_off(model)
        assert not any(is_random(model, IDS) for _ in range(8))


def test_a_model_without_dropout_is_not_random_and_no_draw_is_spent() -> None:
    model = tiny_of("llama")
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with leaving_no_trace(model):
        assert not is_random(model, IDS)
    assert torch.rand(1) == expected
