"""The paper's own figures: *Personality Alignment of Large Language Models* (ICLR 2025), tables 1 and 6.

Aligned score per domain (A, C, E, N, O) and composite as printed, over the 300 people of PAPI, under the protocol of
the authors' code. The printed composites differ from the sum of the printed domains by rounding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from palign_bench.questionnaire.protocol import PROTOCOLS
from palign_bench.questionnaire.scoring import SCORES
from palign_bench.report.data import read_data

PAPER_PEOPLE = 300
_PRINTED = read_data("paper")
TITLES: Mapping[str, str] = _PRINTED["titles"]  # of the paper's methods, by row of our table
RELATIVE_TIMES: Mapping[str, float] = _PRINTED["relative_times"]
OF_CLAIMS: Mapping[str, Mapping[str, Any]] = _PRINTED["claims"]  # by the check of `claims.py` that reads them


@dataclass(frozen=True)
class PaperSetting:
    """One backbone of the paper: its name there and, by row of our table, six figures in the order of `SCORES`."""

    title: str
    figures: Mapping[str, Sequence[float]]

    def composite(self, row: str) -> float | None:
        """The printed composite of a row, None where the paper has none."""
        return self.figures[row][SCORES.index("composite")] if row in self.figures else None


_SETTINGS = {model: PaperSetting(**setting) for model, setting in _PRINTED["settings"].items()}
LLAMA3_8B = _SETTINGS["llama3_8b"]


def nearest_setting(about: Mapping[str, Any]) -> PaperSetting:
    """The paper's setting with the table's model; Llama-3-8B-Instruct, its main one, for models it does not have."""
    return _SETTINGS.get(about["model"], LLAMA3_8B)


def is_the_papers_model(about: Mapping[str, Any]) -> bool:
    """Whether the paper has figures of the table's model."""
    return about["model"] in _SETTINGS


def matching_setting(about: Mapping[str, Any], random_weights: bool) -> PaperSetting | None:
    """The paper's setting when the table is in it: same model with its real weights, its protocol, people of PAPI."""
    same = is_the_papers_model(about) and not random_weights and about["respondents"] == "papi"
    return nearest_setting(about) if same and PROTOCOLS[about["protocol"]].is_the_papers else None
