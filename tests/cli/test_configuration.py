"""Every option of `conf/` composes, means something, and its identity holds what can change a number and no more."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf

from palign_bench.backbone.loading.settings import model_identity, model_title, resolve_model
from palign_bench.cli import main as cli
from palign_bench.cli.arguments import as_part_of_the_sweep, swept_by_experiment
from palign_bench.ledger.cells import fingerprint
from palign_bench.questionnaire.inventory import ipip_neo_300
from palign_bench.questionnaire.protocol import PROTOCOLS
from palign_bench.run.assembly import method_identity, resolve_budget
from palign_bench.run.checks import check_needs
from palign_bench.run.job import Job
from palign_bench.run.methods import make_aligners
from palign_bench.run.session import Session
from palign_bench.settings import UserError, conf_folder, options, read_option

METHODS = options("method")


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        document = OmegaConf.to_container(compose("config", list(overrides)), resolve=True)
    assert isinstance(document, dict)
    return {str(key): value for key, value in document.items()}


def test_there_are_the_options_that_the_readme_names() -> None:
    assert {"floors", "vanilla", "few_shot", "personality_prompt", "pas", "pas_no_prompt"} <= set(METHODS)
    assert options("protocol") == sorted(PROTOCOLS)
    assert options("tracking") == ["none", "trackio", "wandb"]
    assert {"papi", "simulated", "auto", "file", "dark_triad", "dark_triad_random"} == set(options("respondents"))
    assert {"smollm2_135m", "llama3_8b", "llama3_70b", "mistral_7b", "qwen3_8b", "local"} <= set(options("model"))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_composes_and_is_made(method: str) -> None:
    settings = composed(f"method={method}")
    assert settings["method"]["name"] == method
    aligners = make_aligners(resolve_budget(settings["method"], {"name": "paper"}))
    assert list(aligners) == (settings["method"]["rows"] if method in ("floors", "own_means") else [method])
    check_needs(aligners, settings["model"])


@pytest.mark.parametrize("option", options("model"))
def test_every_model_composes_and_has_a_title(option: str) -> None:
    settings = resolve_model(composed(f"model={option}")["model"])
    assert model_title(settings)
    keys = {
        "name",
        "title",
        "weights",
        "name_or_path",
        "revision",
        "dtype",
        "device",
        "quantization",
        "engine",
        "cohort",
    }
    assert keys <= set(settings)


def test_titles_say_what_is_unusual() -> None:
    smollm2 = read_option("model", "smollm2_135m")
    assert "Q4_1" in model_title(resolve_model(smollm2))
    assert "Q4_1" not in model_title(resolve_model(smollm2 | {"weights": "hub"}))
    assert "RANDOM WEIGHTS" in model_title(resolve_model(smollm2 | {"weights": "random"}))
    assert "NF4" in model_title(resolve_model(read_option("model", "llama3_70b")))
    assert model_title(resolve_model(read_option("model", "qwen3_8b"))) == "Qwen3-8B"


def test_the_default_is_the_embedded_model_on_whoever_is_reachable() -> None:
    settings = composed()
    names = {group: settings[group]["name"] for group in ("method", "model", "respondents", "protocol", "tracking")}
    assert names == {
        "method": "vanilla",
        "model": "smollm2_135m",
        "respondents": "auto",
        "protocol": "corrected",
        "tracking": "wandb",
    }


def test_pas_without_prompt_differs_from_pas_in_that_alone() -> None:
    pas, alone = composed("method=pas")["method"], composed("method=pas_no_prompt")["method"]
    assert {key for key in pas if pas[key] != alone[key]} == {"name", "title", "system_prompt"} and set(pas) == set(
        alone
    )
    assert (pas["k"], pas["alphas"], pas["direction"]) == (24, [0, 1, 2, 4, 6, 8], "mass_mean")


def test_places_are_no_part_of_an_identity() -> None:
    def identity(method: dict[str, Any]) -> Any:
        (aligner,) = make_aligners(method).values()
        return method_identity(method, method["name"], aligner)

    here = composed("method=personality_prompt", "runs=/here")["method"]
    there = composed("method=personality_prompt", "runs=/there")["method"]
    assert here != there and identity(here) == identity(there)
    assert identity(here) != identity(here | {"temperature": 0.7})


def test_the_model_that_writes_portraits_is_part_of_the_identity(tmp_path: Path) -> None:
    """Another model's portraits change with its files, whatever its name; the aligned model's own are covered by it."""
    arguments = ["method=personality_prompt", "model=organism", "respondents=simulated", "respondents.limit=1"]
    arguments += ["tracking=none", f"runs={tmp_path}"]
    session = Session()
    own = Job.of(composed(*arguments), session).identities["personality_prompt"]
    other = Job.of(composed(*arguments, "method.writer=organism"), session).identities["personality_prompt"]
    organism = session.identify(resolve_model(read_option("model", "organism")))
    assert "writer" not in own and organism.items() <= other["writer"].items() and len(organism["weights_hash"]) == 64


def test_a_number_is_one_setting_however_it_is_written() -> None:
    made = make_aligners(composed("method=pas")["method"])["pas"]
    of = [
        fingerprint(method_identity(composed("method=pas", f"method.penalty={text}")["method"], "pas", made))
        for text in ("1", "1.0", "1e0", "2")
    ]
    assert of[0] == of[1] == of[2] != of[3]


def test_a_models_identity_covers_what_can_change_a_number() -> None:
    settings = resolve_model(read_option("model", "smollm2_135m"))
    identified = {"weights_hash": "w", "chat_template_hash": "c", "device_kind": "cpu", "dtype": "bfloat16"}
    before = model_identity(settings, identified)
    for key in identified:
        assert model_identity(settings, identified | {key: "other"}) != before
    for key in ("quantization", "engine", "cohort", "weights"):
        assert model_identity(settings | {key: "other"}, identified) != before
    for key in ("title", "package_note", "name_or_path"):
        assert model_identity(settings | {key: "other"}, identified) == before


def test_an_unknown_option_names_the_choices() -> None:
    with pytest.raises(UserError, match="protocol=none does not exist; choose one of as_released, corrected"):
        read_option("protocol", "none")


@pytest.mark.parametrize("name", options("experiment"))
def test_an_experiment_sweeps_over_methods_that_exist(name: str) -> None:
    swept = dict(each.split("=", 1) for each in swept_by_experiment([f"experiment={name}"]))
    methods = swept["method"].split(",")
    assert set(methods) <= set(METHODS)
    for key, values in swept.items():
        for method in methods:  # every combination composes
            composed(f"method={method}", *([f"{key}={values.split(',')[-1]}"] if key != "method" else []))


def jobs(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[dict[str, Any]]:
    """The settings of each job of a command, through Hydra's own command line."""
    monkeypatch.setattr("sys.argv", ["palign-bench"])
    return cli._composed(list(arguments))


def test_what_the_command_line_says_is_swept_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    found = jobs(monkeypatch, "experiment=table5", "method.k=2,3", "seed=1")
    assert [(each["method"]["name"], each["method"]["k"], each["seed"]) for each in found] == [
        ("pas", 2, 1),
        ("pas", 3, 1),
    ]
    (alone,) = jobs(monkeypatch, "experiment=table1", "method=floors", "runs=/a b")
    assert (alone["method"]["name"], alone["name"], alone["runs"]) == ("floors", "table1", "/a b")
    assert [each["model"]["name"] for each in jobs(monkeypatch, "experiment=learning_curve", "method=readout")] == [
        "organism"
    ] * 5
    (single,) = jobs(monkeypatch, "method=pas", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert single["method"]["name"] == "pas"


def test_a_value_for_a_swept_group_is_part_of_the_sweep() -> None:
    """Hydra would set a plain one on the group's default option, which may not have the key."""
    typed = ["-m", "method=lora,dpo", "method.steps=2", "method.learning_rate=1e-3,1e-4", "model=organism", "seed=1"]
    swept = ["-m", "method=lora,dpo", "method.steps=choice(2)", *typed[3:]]
    assert as_part_of_the_sweep(typed) == swept
    assert as_part_of_the_sweep(["method=lora", "method.steps=2"]) == ["method=lora", "method.steps=2"]
    assert as_part_of_the_sweep(["-m", "method=lora,dpo", "method.x=[1,2]"])[-1] == "method.x=choice([1,2])"


def test_conf_holds_no_key_twice_and_no_secret() -> None:
    class Strict(yaml.SafeLoader):
        pass

    def unique(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        keys = [loader.construct_object(key) for key, _ in node.value]  # type: ignore[no-untyped-call]
        assert len(keys) == len(set(keys)), keys
        return loader.construct_mapping(node)

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, unique)
    files: list[Path] = sorted(conf_folder().rglob("*.yaml"))
    assert len(files) >= 20
    for path in files:
        yaml.load(path.read_text(), Strict)
        assert "api_key" not in path.read_text() and "/home/" not in path.read_text()


def test_the_inventory_is_packaged_with_the_code() -> None:
    assert len(ipip_neo_300().items) == 300


def test_every_job_of_a_sweep_is_composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra by itself composes all of them twice, a fifth of a second each time."""
    own, asked = ConfigLoaderImpl.load_sweep_config, []

    def load(self: Any, master_config: Any, sweep_overrides: list[str]) -> Any:
        asked.append(sweep_overrides)
        return own(self, master_config, sweep_overrides)

    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", load)
    monkeypatch.setattr(sys, "argv", ["palign-bench"])
    found = cli._composed(["-m", "method=floors,vanilla", "seed=0,1", "model=organism"])
    assert [(each["method"]["name"], each["seed"]) for each in found] == [
        ("floors", 0), ("floors", 1), ("vanilla", 0), ("vanilla", 1),
    ]  # fmt: skip
    assert len(asked) == 4 and len({tuple(each) for each in asked}) == 4
    assert Sweeper.validate_batch_is_legal.__module__ == "hydra.plugins.sweeper"
