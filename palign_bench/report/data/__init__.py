"""What pages say that is no code: the paper's figures and claims, the panel's columns, the cards' metrics."""

from importlib import resources
from typing import Any

import yaml


def read_data(name: str) -> Any:
    """The content of ``<name>.yaml`` in this folder."""
    return yaml.safe_load(resources.files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8"))
