"""Every stage of teaching on a thin network of SmolLM2's depth: what it trains, and that it goes on if cut off."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from palign_bench.backbone.loading import tokenizer_of
from palign_bench.backbone.loading.settings import resolve_model
from palign_bench.organism.taught import training
from palign_bench.organism.taught.english import English
from palign_bench.organism.taught.network import Network
from palign_bench.organism.taught.stages import ANSWERS, PEOPLE, STAGES
from palign_bench.settings import read_option


@pytest.fixture(scope="module")
def thin():
    tokenizer = tokenizer_of(resolve_model(read_option("model", "smollm2_135m")))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=198,
        head_dim=22,
        intermediate_size=64,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config), tokenizer


@pytest.fixture()
def classroom(thin):
    model, tokenizer = thin
    network = Network(model, training.RANK, 2.0, seed=0)
    room, scales = training._classroom(network, tokenizer)
    texts = [tokenizer("The harbour wakes before the town does, and the boats come in.")["input_ids"]]
    return room, scales, English.of(network, texts, (ANSWERS, PEOPLE, network.layers))


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_lesson_trains_its_layers_alone_and_is_drawn_from_its_seed(classroom, stage):
    room, scales, english = classroom
    losses = []
    for _ in range(2):
        for each in room.network.differences(range(30)):
            each.grad = None
        loss, figures = stage.lesson(room, np.random.default_rng(4))
        loss.backward()
        losses.append(loss.item())
        assert all(np.isfinite(value) for value in figures.values())
    assert losses[0] == losses[1] and np.isfinite(losses[0])
    for layer in range(30):
        learns = [each.grad is not None for each in room.network.differences([layer])]
        assert all(learns) if stage.bottom <= layer < stage.top else not any(learns)
    scale = scales[stage.top].deviation if stage.top in scales else None
    drift = english.loss(room.network, 0, stage.bottom, stage.top, scale)
    assert drift.item() == pytest.approx(0, abs=1e-6)  # nothing is taught yet


def test_a_stage_that_was_cut_off_ends_as_one_that_was_not(classroom, tmp_path, monkeypatch):
    rate = training._rate
    monkeypatch.setattr(training, "_rate", lambda step, steps: rate(step, 4))  # a shorter part is no shorter stage
    room, scales, english = classroom
    ends = []
    for name, parts in (("whole", (4,)), ("cut", (2, 4))):
        folder = tmp_path / name
        folder.mkdir()
        untaught = [each.detach().clone() for each in room.network.differences(range(ANSWERS))]
        for steps in parts:
            training._run(folder, room, STAGES[0], steps, english, scales, [0, 0], None)
        ends.append([each.detach().clone() for each in room.network.differences(range(ANSWERS))])
        with torch.no_grad():
            for own, value in zip(room.network.differences(range(ANSWERS)), untaught, strict=True):
                own.copy_(value)
            room.network.merge(range(ANSWERS))
    for whole, cut in zip(*ends, strict=True):
        torch.testing.assert_close(whole, cut)
    assert any(float((end - start).abs().max()) > 1e-4 for end, start in zip(ends[0], untaught, strict=True))
