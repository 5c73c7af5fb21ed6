"""The model of the commands that compute."""

from pathlib import Path

import pytest

from tests.command import save_many_headed


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_many_headed(tmp_path_factory.mktemp("many-headed") / "tiny24")
