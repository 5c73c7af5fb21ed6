"""Changed known answers: what is changed, what stays, and how much of a change the options allow."""

from dataclasses import replace

import numpy as np
import pytest

from palign_bench.questionnaire.intervention import Intervention
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.respondents import RespondentSource
from palign_bench.settings import UserError


def _change(name: str, inventory: Inventory) -> Intervention:
    return Intervention.parse(name, inventory)


def test_one_scale_moves_in_the_keyed_direction_and_is_clipped(inventory: Inventory) -> None:
    scale = "N"
    positive = [n for n in inventory.known if inventory[n].scale == scale and inventory[n].sign > 0]
    negative = [n for n in inventory.known if inventory[n].scale == scale and inventory[n].sign < 0]
    other = [n for n in inventory.known if inventory[n].scale != scale]
    told = {positive[0]: 3, positive[1]: 5, negative[0]: 3, negative[1]: 1, other[0]: 4}
    raised = _change("N+1", inventory).apply(told, inventory)
    assert raised == {positive[0]: 4, positive[1]: 5, negative[0]: 2, negative[1]: 1, other[0]: 4}
    dose = _change("N+1", inventory).dose(told, inventory)
    assert dose["neuroticism"] == pytest.approx(2 / 4)  # two of four were at the end of the scale
    assert all(value == 0 for name, value in dose.items() if name != "neuroticism")
    lowered = _change("N-1", inventory).apply(told, inventory)
    assert lowered == {positive[0]: 2, positive[1]: 4, negative[0]: 4, negative[1]: 2, other[0]: 4}


def test_the_inverted_person_is_the_same_literal_or_keyed(inventory: Inventory) -> None:
    told = {n: 1 + n % 5 for n in inventory.known}
    change = _change("inverted", inventory)
    assert change.apply(told, inventory) == {n: 6 - value for n, value in told.items()}
    assert change.apply(change.apply(told, inventory), inventory) == told


def test_doses_of_the_real_people_are_as_measured(papi: RespondentSource, inventory: Inventory) -> None:
    """+1 realises .905/.927/.939/.966/.888 (A, C, E, N, O), 4.62 in all; -1 realises -4.91."""
    known = [{n: p.answers[n] for n in inventory.known if n in p.answers} for p in papi.people]
    up = np.array([list(_change("all+1", inventory).dose(each, inventory).values()) for each in known])
    down = np.array([list(_change("all-1", inventory).dose(each, inventory).values()) for each in known])
    assert up.mean(axis=0) == pytest.approx([0.905, 0.927, 0.939, 0.966, 0.888], abs=0.0006)
    assert up.mean(axis=0).sum() == pytest.approx(4.62, abs=0.006)
    assert down.mean(axis=0).sum() == pytest.approx(-4.91, abs=0.006)


@pytest.mark.parametrize("scale", ["self-esteem", "Verträglichkeit", "A+1"])
def test_a_scale_may_be_called_anything(inventory: Inventory, scale: str) -> None:
    items = tuple(replace(item, scale=scale if item.scale == "A" else item.scale) for item in inventory.items)
    scales = {scale if each == "A" else each: name for each, name in inventory.scales.items()}
    change = Intervention.parse(f"{scale}-2", replace(inventory, items=items, scales=scales))
    assert change is not None and (change.name, change.scales, change.step) == (f"{scale}-2", (scale,), -2)


@pytest.mark.parametrize("name", ["", "A", "A+0", "X+1", "A+1 ", "1", "invert"])
def test_anything_else_is_told(inventory: Inventory, name: str) -> None:
    with pytest.raises(UserError, match=r"choose a scale of ipip_neo_300 and a step, as in A\+1"):
        _change(name, inventory)
