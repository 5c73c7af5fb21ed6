"""The rule-based reward: every label, however written, against the listing in the paper's C.2."""

import pytest

from baselines.training.reward import NO_LABEL, RewardLog, named_option
from palign_bench.questionnaire.inventory import OPTIONS

LABELS = {option.value: option.label for option in OPTIONS}


def label_reward(text: str, option: int) -> float:
    (reward,) = RewardLog().rewards_of([text], [option])
    return reward


def listing(text: str, option: int) -> float:
    """The paper's listing, for texts that spell a label as it does."""
    named = {5: "Very_Accurate", 4: "Moderately_Accurate", 3: "Neither_Accurate_Nor_Inaccurate"}
    named |= {2: "Moderately_Inaccurate", 1: "Very_Inaccurate", 0: "Unknown"}
    for score, label in named.items():
        if label in text:
            return -abs(score - option)
    return -6


def spellings(label: str) -> list[str]:
    return [
        label,
        label.lower(),
        label.upper(),
        label.replace(" ", "_"),
        label.lower().replace(" ", "_"),
        label.title(),
        f" (A). {label}.",
        f"I would say that this is {label.lower()}, on the whole",
        f'"{label}"<end>',
        label.replace(" ", "  "),
        label.replace(" ", "\n"),
    ]


@pytest.mark.parametrize("value", LABELS)
def test_every_label_is_read_in_every_spelling(value: int) -> None:
    for text in spellings(LABELS[value]):
        assert named_option(text) == value, text


@pytest.mark.parametrize("value", LABELS)
@pytest.mark.parametrize("option", LABELS)
def test_rewards_are_those_of_the_listing(value: int, option: int) -> None:
    words = "_".join(word.capitalize() for word in LABELS[value].split())
    assert label_reward(f"Option: {words}", option) == listing(f"Option: {words}", option)
    assert label_reward(LABELS[value], option) == -abs(value - option)


@pytest.mark.parametrize("value", LABELS)
def test_a_truncated_label_names_nothing(value: int) -> None:
    for end in range(len(LABELS[value])):
        assert label_reward(LABELS[value][:end], 3) == NO_LABEL


@pytest.mark.parametrize("text", ["", "Accurate", "Inaccurate", "Option (A)", "Every Accurate", "Very Accurately"])
def test_other_texts_name_nothing(text: str) -> None:
    assert label_reward(text, 1) == NO_LABEL == listing(text, 1)


def test_unknown_is_option_zero() -> None:
    assert [label_reward("Unknown", option) for option in LABELS] == [-option for option in LABELS]


def test_of_several_labels_the_listings_order_decides() -> None:
    assert named_option("Very Inaccurate, not Very Accurate") == 5
    assert named_option("Unknown or Moderately Inaccurate") == 2


def test_the_log_counts_disagreement_of_label_and_letter() -> None:
    log = RewardLog()
    rewards = log.rewards_of([" (A). Very Accurate", " (E). Very Accurate", " (B).", "nothing"], [5, 5, 4, 1])
    assert rewards == [0, 0, NO_LABEL, NO_LABEL]
    assert log.summary() == {"rewarded_texts": 4, "unnamed_rate": 0.5, "label_letter_disagreement": 0.5}
