"""`make bench` for real on a tiny model, and whether its peers answer the same questions."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
import transformers

from bench import __main__ as bench
from bench import peers
from bench.__main__ import seconds_of
from bench.growth import DEPTHS, ITEMS, KNOWN, PEOPLE, Growth, depths, random_model
from bench.lm_eval import lm_eval_log_probs
from bench.peers import Answered, Questions, ask, compared, parsed, questions, why_not_asked
from bench.profile import profiled
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.engines import products
from palign_bench.backbone.engines.base import Request
from palign_bench.backbone.loading.settings import package_path, resolve_model
from palign_bench.backbone.loading.weights import LoadedModel
from palign_bench.backbone.local import LocalBackbone
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.settings import UserError, read_option
from tests.backbone import fake_vllm
from tests.command import save_many_headed
from tests.protocols import CORRECTED


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one run of everything but the optional peers wrote."""
    here = tmp_path_factory.mktemp("bench")
    model = save_many_headed(here / "tiny24")
    options = ["--model", "local", "--path", str(model), "--dtype", "float32", "--respondents", "simulated"]
    amounts = ["--repeats", "1", "--plain-items", "4", "--growth", "--cohort", "2", "--steps", "1", "--together", "2"]
    bench.main([*options, *amounts, "--runs", str(here / "runs")])
    return here / "runs" / "bench"


@pytest.fixture(scope="module")
def rows(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "bench.csv").set_index("name")


def test_seconds_and_ratios_to_ours(rows: pd.DataFrame) -> None:
    assert list(rows.columns) == ["seconds", "ratio_to_ours", "note"] and (rows["seconds"] > 0).all()
    for theirs, ours in (
        ("few_shot_answers_plain_generate", "few_shot_answers_ours"),
        ("lora_one_by_one", "lora_cohort"),
        ("few_shot_answers_one_by_one", "few_shot_answers_together"),
        ("few_shot_answers_and_audit_one_by_one", "few_shot_answers_and_audit_together"),
        ("pas_probes_scikit_learn", "pas_probes_ours"),
    ):
        ratio = rows.loc[theirs, "seconds"] / rows.loc[ours, "seconds"]
        assert rows.loc[theirs, "ratio_to_ours"] == pytest.approx(ratio)
    assert rows.loc["pas_align_and_answers", "seconds"] > rows.loc["pas_align", "seconds"]


def test_people_in_one_pass_are_timed_with_and_without_the_audit(rows: pd.DataFrame) -> None:
    notes = [rows.loc[f"few_shot_{each}_together", "note"] for each in ("answers", "answers_and_audit")]
    assert notes == [f"2 people, 180 items, {texts} free texts; 2 in a pass" for texts in (0, 20)]


def test_plain_generation_answers_as_ours_does(rows: pd.DataFrame) -> None:
    assert "100% equal answers" in rows.loc["few_shot_answers_plain_generate", "note"]


def test_growth_is_measured_drawn_and_told(folder: Path, rows: pd.DataFrame) -> None:
    told = rows.loc[f"few_shot_answers_{PEOPLE[-1]}_people", "note"]
    assert re.search(r"exponent -?[0-9.]+ \(1: linear\)", told)
    assert {f"few_shot_answers_{ITEMS[-1]}_items", f"few_shot_answers_{KNOWN[-1]}_known_answers"} <= set(rows.index)
    assert {path.name for path in folder.iterdir()} == {"bench.csv", "bench.md", "growth.png", "growth.pdf"}
    assert "load average" in (folder / "bench.md").read_text()


def test_a_profile_names_the_operators_and_their_shares(folder: Path, tmp_path: Path) -> None:
    matrix = torch.randn(300, 300)
    text = profiled("products", lambda: [matrix @ matrix for _ in range(50)])
    assert re.search(r"^aten::mm +([5-9]\d\.\d|100\.0)% .* 50$", text, re.MULTILINE), text
    options = ["--model", "local", "--path", str(folder.parents[1] / "tiny24"), "--respondents", "simulated"]
    bench.main([*options, "--dtype", "float32", "--profile", "4", "--runs", str(tmp_path)])
    written = (tmp_path / "bench" / "profile.txt").read_text()
    assert all(title in written for title in ("Few-Shot, 4 answers", "PAS, prepare", "PAS, probes of one person"))


def test_the_exponent_of_a_power_law() -> None:
    amounts = (1.0, 3.0, 10.0, 200.0)
    assert Growth("items", amounts, tuple(2.5 * x**1.7 for x in amounts)).exponent == pytest.approx(1.7)


def test_deeper_models_keep_the_shape(tiny_backbone: LocalBackbone) -> None:
    layers = tiny_backbone.model.config.num_hidden_layers
    assert depths(tiny_backbone) == [1, layers] and len(DEPTHS) == 3
    shallow = random_model(tiny_backbone, 1)
    assert shallow.model.config.hidden_size == tiny_backbone.model.config.hidden_size
    assert len(shallow.model.base_model.layers) == 1 and tiny_backbone.model.config.num_hidden_layers == layers


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

    def clock(work: Callable[[], object]) -> float:
        work()
        return next(times)

    monkeypatch.setattr(peers, "LlamaCpp", Program)
    times = iter([10.0, 12.0])
    answered = peers.llama_cpp(replace(asked, clock=clock, file=Path("a.gguf")), peers.SEQUENCES)
    assert answered.seconds == pytest.approx(10.0 + 180.0) and read[-1] == len(asked.prompts.prefix)
    assert answered.note == "a.gguf, 12 items in one call"


def test_a_gguf_file_is_the_whole_model_or_not_asked() -> None:
    """The taught model's file is that of the model from before it was taught."""
    names = ("smollm2_135m", "smollm2_135m_taught", "organism")
    files = [bench._gguf(resolve_model(read_option("model", name))) for name in names]
    assert files[0] is not None and files[0].suffix == ".gguf" and files[1:] == [None, None]


def test_only_methods_that_train_cohorts_are_timed_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"--methods few_shot: .* dpo, lora, ppo, qlora, rloo\."):
        bench.main(["--cohort", "2", "--methods", "lora,few_shot"])
    assert capsys.readouterr().out == "", "it was refused once the model had been loaded"


def test_lm_eval_gives_our_log_probabilities(asked: Questions) -> None:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is optional")
    rows = asked.backbone.engine.option_log_probs(Request(asked.prompts), asked.options)
    torch.testing.assert_close(lm_eval_log_probs(asked.backbone, asked.texts), rows, atol=1e-4, rtol=0)


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
