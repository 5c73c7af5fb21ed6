"""A figure is a field of a measured cost, or an amount that was charged to it."""

from palign_bench.costs.clock import Cost
from palign_bench.costs.figures import CostFigure


def test_an_amount_called_like_a_method_of_a_cost_is_the_amount() -> None:
    cost = Cost(seconds=2.5, amounts={"share": 3.0, "seconds": 9.0})
    found = [CostFigure("any", "seconds", "align", quantity).of(cost) for quantity in ("share", "seconds", "above")]
    assert found == [3.0, 2.5, 0]
