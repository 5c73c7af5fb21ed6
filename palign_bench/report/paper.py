"""The paper's own figures: *Personality Alignment of Large Language Models* (ICLR 2025), tables 1 and 6.

Aligned score per domain (A, C, E, N, O) and composite as printed, over the 300 people of PAPI, under the protocol of
the authors' code. The printed composites differ from the sum of the printed domains by rounding.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palign_bench.questionnaire.protocol import PROTOCOLS
from palign_bench.questionnaire.scoring import SCORES

PAPER_PEOPLE = 300
TITLES: Mapping[str, str] = {  # of the paper's methods, by row of our table
    "few_shot": "Few-Shot",
    "personality_prompt": "P²",
    "pas": "PAS",
    "dpo": "DPO",
    "ppo": "PPO",
    "full_finetuning": "Full fine-tuning",
    "lora": "LoRA",
    "qlora": "QLoRA",
    "prompt_tuning": "Prompt-tuning",
}
RELATIVE_TIMES: Mapping[str, float] = {"pas": 1.0, "dpo": 5.0, "ppo": 6.0}  # "1/5 of the time of DPO, 1/6 of PPO's"


@dataclass(frozen=True)
class PaperSetting:
    """One backbone of the paper: its name there and, by row of our table, six figures in the order of `SCORES`."""

    title: str
    figures: Mapping[str, tuple[float, float, float, float, float, float]]

    def composite(self, row: str) -> float | None:
        """The printed composite of a row, None where the paper has none."""
        return self.figures[row][SCORES.index("composite")] if row in self.figures else None


LLAMA3_8B = PaperSetting(
    "Llama-3-8B-Instruct",
    {
        "few_shot": (1.28, 1.30, 1.40, 1.09, 0.89, 5.96),
        "personality_prompt": (1.39, 1.33, 1.41, 1.22, 1.68, 7.03),
        "pas": (0.94, 0.91, 0.86, 0.98, 0.72, 4.41),
        "dpo": (1.54, 1.42, 1.54, 1.74, 1.21, 7.45),
        "ppo": (1.63, 1.51, 1.45, 1.42, 1.61, 7.62),
        "full_finetuning": (1.21, 0.99, 1.03, 0.88, 0.78, 4.89),
        "lora": (1.16, 1.05, 0.97, 0.93, 0.83, 4.94),
        "qlora": (1.08, 1.12, 1.09, 0.85, 0.90, 5.04),
        "prompt_tuning": (1.25, 1.07, 1.01, 0.96, 0.86, 5.15),
    },
)
LLAMA3_70B = PaperSetting(
    "Llama-3-70B-Instruct",
    {
        "few_shot": (1.06, 0.94, 0.96, 1.03, 1.22, 5.21),
        "personality_prompt": (1.42, 1.33, 1.36, 1.35, 1.66, 7.12),
        "pas": (0.98, 0.89, 0.87, 1.01, 0.99, 4.74),
        "dpo": (1.46, 1.25, 1.45, 1.48, 1.57, 7.21),
        "ppo": (1.56, 1.59, 1.43, 1.40, 1.56, 7.54),
    },
)
_SETTINGS: dict[str, PaperSetting] = {"llama3_8b": LLAMA3_8B, "llama3_70b": LLAMA3_70B}


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
