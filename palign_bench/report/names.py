"""Rows of a table: how they read, and which of them are floors."""

from __future__ import annotations

from palign_bench.questionnaire.inventory import OPTIONS

CONSTANTS: tuple[str, ...] = tuple(f"constant_{option.letter.lower()}" for option in OPTIONS)
OWN_ANSWERS_FLOORS: tuple[str, ...] = (*CONSTANTS, "random", "domain_mean", "facet_mean")
OTHER_PEOPLE_FLOORS: tuple[str, ...] = ("item_median", "ridge")
CHECKS: tuple[str, ...] = ("truth",)
# What is best for people drawn from a model, computed with that very model: no floor to beat on anyone else.
KNOWN_TRUTH: tuple[str, ...] = ("ceiling",)

# Methods that learn from the other people: to be held against the other-people floors, not against the other methods.
PEOPLE_METHODS: tuple[str, ...] = ("readout_people",)

METHODS_GROUP, PEOPLE_METHODS_GROUP, OWN_GROUP, PEOPLE_GROUP, KNOWN_TRUTH_GROUP, CHECK_GROUP = (
    "Methods",
    "Methods that learn from others' answers",
    "Own-answers floors",
    "Other-people floors",
    "Known truth",
    "Check",
)
GROUPS: tuple[str, ...] = (
    METHODS_GROUP,
    PEOPLE_METHODS_GROUP,
    OWN_GROUP,
    PEOPLE_GROUP,
    KNOWN_TRUTH_GROUP,
    CHECK_GROUP,
)

_READABLE: dict[str, str] = {
    **{f"constant_{option.letter.lower()}": f"Always {option.letter}" for option in OPTIONS},
    "random": "Random option",
    "domain_mean": "Own domain mean",
    "facet_mean": "Own facet mean",
    "item_median": "Item median of others",
    "ridge": "Ridge on others",
    "ceiling": "Factor-model posterior",
    "truth": "Own true answers",
    "vanilla": "Vanilla",
    "few_shot": "Few-Shot",
    "personality_prompt": "P²",
    "personality_prompt_template": "P², template",
    "pas": "PAS",
    "pas_no_prompt": "PAS, no prompt",
    "dpo": "DPO",
    "ppo": "PPO",
    "rloo": "RLOO",
    "lora": "LoRA",
    "qlora": "QLoRA",
    "full_finetuning": "Full fine-tuning",
    "prompt_tuning": "Prompt-tuning",
    "readout": "Readout",
    "few_shot_readout": "Few-Shot + readout",
    "readout_people": "Readout, others' answers",
}


def readable(row: str) -> str:
    """The name of a row in tables and pictures; a row that the project does not know shows its own."""
    return _READABLE.get(row, row)


def group_of(row: str) -> str:
    """Which block of the table a row stands in."""
    if row in OWN_ANSWERS_FLOORS:
        return OWN_GROUP
    if row in OTHER_PEOPLE_FLOORS:
        return PEOPLE_GROUP
    if row in PEOPLE_METHODS:
        return PEOPLE_METHODS_GROUP
    if row in KNOWN_TRUTH:
        return KNOWN_TRUTH_GROUP
    return CHECK_GROUP if row in CHECKS else METHODS_GROUP
