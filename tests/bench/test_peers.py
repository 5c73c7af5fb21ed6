"""Other programs, asked the same questions: the same answers, and seconds that are told for what they are."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers

from bench import __main__ as bench
from bench import peers
from bench.__main__ import seconds_of
from bench.lm_eval import LmEval
from bench.peers import Answered, Questions, ask, compared, parsed, questions, why_not_asked
from bench.sglang import packs
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.engines import products
from palign_bench.backbone.engines.base import Request
from palign_bench.backbone.loading.settings import package_path, resolve_model
from palign_bench.backbone.loading.weights import LoadedModel
from palign_bench.backbone.local import LocalBackbone
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.settings import read_option
from tests.backbone import fake_vllm
from tests.bench import fake_sglang
from tests.protocols import CORRECTED


@pytest.fixture
def asked(tiny_backbone: LocalBackbone, inventory: Inventory) -> Questions:
    items, alignment = (
        inventory.select(inventory.held_out[:12]),
        Alignment(system_prompt="You worry, and you are kind."),
    )
    return questions(tiny_backbone, alignment, items, 180, seconds_of, None)


def test_a_peer_that_cannot_be_asked_is_one_line(monkeypatch: pytest.MonkeyPatch, asked: Questions) -> None:
    assert why_not_asked("generate", asked) is None
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda module: None)
    assert why_not_asked("llama.cpp", asked) == "not installed: pip install llama-cpp-python"
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda module: True)
    assert why_not_asked("openvino", asked) == "reads GGUF files, and this model comes in none"


def test_peers_are_asked_in_the_faster_arithmetic_too(monkeypatch: pytest.MonkeyPatch, asked: Questions) -> None:
    """And their answers are ours: the same greedy text, parsed."""
    assert set(ask("generate", asked)) == {"plain_generate"}
    asked.backbone.model.to(torch.bfloat16)
    for speedup, ways in ((0.4, {"plain_generate"}), (2.0, {"plain_generate", "plain_generate_float32"})):
        monkeypatch.setattr(products, "float32_speedup", lambda dtype, speedup=speedup: speedup)
        assert set(ask("generate", asked)) == ways
    assert asked.backbone.model.dtype == torch.bfloat16


def test_vllm_reads_the_beginning_once_and_gives_our_answers(
    monkeypatch: pytest.MonkeyPatch, asked: Questions, inventory: Inventory
) -> None:
    fake_vllm.install(monkeypatch, on_processor=True)
    ended: list[fake_vllm.LLM] = []
    monkeypatch.setattr(peers, "end_vllm", ended.append)
    answered = ask("vllm", asked)["vllm"]
    assert len(ended) == 1, "what is timed next would share the machine with it"
    alignment = Alignment(system_prompt="You worry, and you are kind.")
    ours = asked.backbone.answer(alignment, inventory.select(inventory.held_out[:12])).log_probs or {}
    assert answered.log_probs is not None and answered.log_probs.shape == (12, 5)
    torch.testing.assert_close(answered.log_probs, torch.tensor(list(ours.values())), atol=1e-4, rtol=0)
    assert "block_size 32" in answered.note and answered.seconds > 0
    own_process = replace(asked, of_one_process=True)
    assert why_not_asked("vllm", own_process) == (
        "computes in a process of its own, whose time --processor-time does not count"
    )
    assert why_not_asked("generate", own_process) is None


@pytest.mark.parametrize("packed", [False, True])
def test_sglang_reads_one_beginning_and_gives_our_answers(
    packed: bool, monkeypatch: pytest.MonkeyPatch, asked: Questions, inventory: Inventory
) -> None:
    """Packed too, in prompts that the model's context holds."""
    started = fake_sglang.install(monkeypatch)
    longest = max(map(len, asked.prompts.suffixes))
    monkeypatch.setattr(peers, "LONGEST_PACK", len(asked.prompts.prefix) + 6 * (longest + 1))
    answered = peers.sglang(asked, packed=packed)
    (engine,) = started
    assert engine.model is None, "what is timed next would share the machine with it"
    alignment = Alignment(system_prompt="You worry, and you are kind.")
    ours = asked.backbone.answer(alignment, inventory.select(inventory.held_out[:12])).log_probs or {}
    assert answered.log_probs is not None and answered.log_probs.shape == (12, 5)
    torch.testing.assert_close(answered.log_probs, torch.tensor(list(ours.values())), atol=1e-4, rtol=0)
    if packed:  # all 180, several in a prompt, after one to warm up
        assert 180 / 12 <= len(engine.lengths) - 1 <= 180 / 5
        monkeypatch.setattr(peers, "version", lambda package: "0.5.23")
        assert "12 items compared; 100% equal" in compared("sglang", answered, [], answered.log_probs)
    else:
        assert len(engine.lengths) == 1 + 12


def test_packs_hold_as_many_as_fit_and_every_one() -> None:
    endings = [[1] * length for length in (3, 3, 4, 9, 1)]
    assert list(packs(endings, 9)) == [endings[:2], endings[2:3], endings[3:4], endings[4:]]
    assert list(packs(endings, 1000)) == [endings]


def test_what_is_compared_and_how_seconds_are_scaled(monkeypatch: pytest.MonkeyPatch, asked: Questions) -> None:
    """One item paid for the beginning, eleven for themselves; scaled to 180."""
    assert asked.scaled(first=10.0, others=22.0) == pytest.approx(10.0 + 2.0 * 179)
    ours = torch.eye(5).repeat(3, 1)[:12].log_softmax(-1)
    answers = [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, None]
    monkeypatch.setattr(peers, "version", lambda package: transformers.__version__)
    note = compared("lm-eval", Answered(1.0, answers, "its way", ours + 0.25), [], ours)
    assert "12 items timed, scaled; 92% equal answers, log-probabilities differ by at most 0.25" in note
    texts = [" (A).", " (E)", " maybe"]
    assert parsed(texts) == [0, 4, None]
    note = compared("generate", Answered(1.0, [0, 1, None], "greedy"), texts, ours)
    assert note == f"transformers {transformers.__version__}, greedy; 3 items timed, scaled; 67% equal answers"


def test_seconds_of_llama_cpp_are_the_beginnings_and_a_share_of_the_items(
    monkeypatch: pytest.MonkeyPatch, asked: Questions
) -> None:
    """However the clock scatters, they cannot fall below what either part took: 10 s, and 12 s for 12 items of 180."""
    read: list[int] = []

    class Program:
        BATCH = 2048

        def __init__(self, *_: object) -> None: ...

        def read_beginning(self, tokens: list[int]) -> None:
            read.append(len(tokens))

        def log_probs(self, suffixes: list[list[int]], options: list[int]) -> torch.Tensor:
            return torch.zeros(len(suffixes), len(options))

        def close(self) -> None: ...

    monkeypatch.setattr(peers, "LlamaCpp", Program)
    answered = peers.llama_cpp(replace(asked, clock=watching([], [10.0, 12.0]), file=Path("a.gguf")), peers.SEQUENCES)
    assert answered.seconds == pytest.approx(10.0 + 180.0) and read[-1] == len(asked.prompts.prefix)
    assert answered.note == "a.gguf, 12 items in one call"


def test_what_lm_eval_does_once_is_not_scaled(monkeypatch: pytest.MonkeyPatch, asked: Questions) -> None:
    """A task in 10 s, 12 of 180 items in 12 s; the wrapper and a first item are made before the clock is asked."""
    done: list[str] = []

    class Program:
        def __init__(self, *_: object) -> None:
            done.append("wrapper")

        def task(self, prompts: list[str]) -> list[str]:
            done.append(f"task of {len(prompts)}")
            return prompts

        def log_probs(self, task: list[str]) -> torch.Tensor:
            done.append(f"{len(task)} items")
            return torch.zeros(len(task), 5)

    monkeypatch.setattr(peers, "LmEval", Program)
    answered = peers.lm_eval(replace(asked, clock=watching(done, [10.0, 12.0])))
    assert answered.seconds == pytest.approx(10.0 + 180.0) and answered.answers == [0] * 12
    assert done == ["wrapper", "task of 1", "1 items", "clock", "task of 12", "clock", "12 items"]


def test_plain_generation_is_warm_when_it_is_timed(monkeypatch: pytest.MonkeyPatch, asked: Questions) -> None:
    done: list[str] = []

    def written(backbone: LocalBackbone, texts: list[str], model: object) -> list[str]:
        done.append(f"{len(texts)} texts")
        return [" (A)"] * len(texts)

    monkeypatch.setattr(peers, "plain_generation", written)
    answered = peers.generate(replace(asked, clock=watching(done, [12.0])))
    assert done == ["1 texts", "clock", "12 texts"] and answered.seconds == pytest.approx(180.0)


def watching(done: list[str], seconds: list[float]) -> Callable[[Callable[[], object]], float]:
    """A clock that takes what it times for so long, and leaves a word before it."""
    times = iter(seconds)

    def clock(work: Callable[[], object]) -> float:
        done.append("clock")
        work()
        return next(times)

    return clock


def test_a_gguf_file_is_the_whole_model_or_not_asked() -> None:
    """The taught model's file is that of the model from before it was taught."""
    names = ("smollm2_135m", "smollm2_135m_taught", "organism")
    files = [bench._gguf(resolve_model(read_option("model", name))) for name in names]
    assert files[0] is not None and files[0].suffix == ".gguf" and files[1:] == [None, None]


def test_lm_eval_gives_our_log_probabilities(asked: Questions) -> None:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is optional")
    rows = asked.backbone.engine.option_log_probs(Request(asked.prompts), asked.options)
    peer = LmEval(asked.backbone)
    torch.testing.assert_close(peer.log_probs(peer.task(asked.texts)), rows, atol=1e-4, rtol=0)


def test_llama_cpp_reads_what_we_read(smollm2: LoadedModel, inventory: Inventory) -> None:
    """One by one and several at once, to what 8 bits of its activations allow."""
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is optional")
    backbone = LocalBackbone(smollm2, CORRECTED, "shared_prefix")
    settings = resolve_model(read_option("model", "smollm2_135m"))
    file = package_path(settings["package"], settings["package_file"])
    items = inventory.select(inventory.held_out[:3])
    asked = questions(backbone, Alignment(system_prompt="You worry, and you are kind."), items, 180, seconds_of, file)
    ours = backbone.engine.option_log_probs(Request(asked.prompts), asked.options)
    for answered in ask("llama.cpp", asked).values():
        assert answered.log_probs is not None and answered.seconds > 0
        assert float((answered.log_probs - ours).square().mean().sqrt()) < 0.15 * float(ours.std())
