"""What cannot be trained on a model is refused in one line, when the method is prepared."""

from typing import Any

import pytest

from palign_bench.backbone.loading.weights import LoadedModel
from palign_bench.backbone.local import LocalBackbone
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.respondents import RespondentSource
from palign_bench.settings import UserError
from tests.architectures import tiny_of
from tests.baselines.training.conftest import LORA, Bench
from tests.protocols import CORRECTED
from tests.tiny import tiny_tokenizer


def bench_of(name: str, inventory: Inventory, source: RespondentSource) -> Bench:
    loaded = LoadedModel(tiny_of(name), tiny_tokenizer(), name, name, "none")
    return Bench(LocalBackbone(loaded, CORRECTED), inventory, source)


@pytest.mark.parametrize(
    ("name", "method", "settings", "message"),
    [
        ("mixtral", "lora", {"peft": LORA | {"lora_dropout": 0.05}}, "cannot put this adapter on a mixtral .*dropout"),
        ("mixtral", "rloo", {"cohort": 2}, r"training\.cohort=2: .* is no linear layer.*target_modules"),
        ("phimoe", "lora", {}, "cannot put this adapter on a phimoe"),
        ("xglm", "prompt", {}, "cannot put this adapter on a xglm .*num_attention_heads"),
        ("recurrent_gemma", "ppo", {"cohort": 2}, r"training\.cohort=2: a recurrent_gemma keeps no keys"),
    ],
)
def test_an_adapter_that_does_not_go_on(
    inventory: Inventory, simulated: RespondentSource, name: str, method: str, settings: dict[str, Any], message: str
) -> None:
    bench = bench_of(name, inventory, simulated)
    before = [(name, type(module), module.training) for name, module in bench.backbone.model.named_modules()]
    with pytest.raises(UserError, match=message) as caught:
        bench.aligner(method, **settings)
    assert "\n" not in str(caught.value)
    assert [(name, type(each), each.training) for name, each in bench.backbone.model.named_modules()] == before


def test_a_mixture_of_experts_is_trained_without_dropout(inventory: Inventory, simulated: RespondentSource) -> None:
    bench = bench_of("mixtral", inventory, simulated)
    assert bench.aligner("lora", steps=1).align(bench.case()).summary["moved_share"] > 0
    assert bench.aligner("rloo", steps=1).align(bench.case()).summary["rewarded_texts"] == 8


def test_a_tokenizer_that_ends_no_text(bench: Bench) -> None:
    bench.backbone.tokenizer.eos_token = None
    with pytest.raises(UserError, match=r"no token that ends an answer: name its eos_token in tokenizer_config\.json"):
        bench.aligner("lora")
