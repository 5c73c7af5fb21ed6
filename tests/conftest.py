"""Shared fixtures. Tests of the real 300 people need PALIGN_PAPI_DIR or the cache, and are skipped without."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.protocols import CORRECTED

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
# Trackio reads where it keeps everything once, when it is imported, which TRL does where it finds it.
os.environ["TRACKIO_DIR"] = tempfile.mkdtemp(prefix="trackio-")


from palign_bench.backbone.loading.settings import resolve_model
from palign_bench.backbone.loading.weights import LoadedModel, load
from palign_bench.backbone.local import LocalBackbone
from palign_bench.questionnaire.inventory import Inventory, ipip_neo_300
from palign_bench.respondents import RespondentsError, RespondentSource, load_papi, simulate
from palign_bench.settings import read_option
from tests.tiny import save_tiny, tiny_model, tiny_tokenizer


@pytest.fixture(scope="session")
def inventory() -> Inventory:
    return ipip_neo_300()


@pytest.fixture(scope="session")
def papi() -> RespondentSource:
    """The 300 real people; skips where neither a folder nor the cache has them."""
    try:
        return load_papi(download=False)
    except RespondentsError as error:
        pytest.skip(f"the real 300 people are not at hand ({error})")


@pytest.fixture(scope="session")
def simulated() -> RespondentSource:
    return simulate(count=300, seed=0)


@pytest.fixture(scope="session")
def source() -> RespondentSource:
    """The real people where they are at hand, else simulated ones: for tests that hold for both."""
    try:
        return load_papi(download=False)
    except RespondentsError:
        return simulate(count=300, seed=0)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny() -> Iterator[LoadedModel]:
    """A fresh tiny model for each test, so that none can spoil another's weights."""
    tokenizer = tiny_tokenizer()
    yield LoadedModel(tiny_model(tokenizer), tokenizer, "tiny", "tiny", "none")


@pytest.fixture
def tiny_backbone(tiny: LoadedModel) -> LocalBackbone:
    return LocalBackbone(tiny, CORRECTED)


@pytest.fixture(scope="session")
def smollm2() -> LoadedModel:
    """The real embedded model in float32: comparisons to 1e-4 need it."""
    return load(resolve_model(read_option("model", "smollm2_135m")) | {"dtype": "float32"})
