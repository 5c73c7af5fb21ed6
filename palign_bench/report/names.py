"""Blocks of a table, in order, and which rows are constant options. A row's title and block come from its method."""

METHODS, PEOPLE_METHODS, OWN_FLOORS, PEOPLE_FLOORS, KNOWN_TRUTH, CHECKS = (
    "methods",
    "people_methods",  # they learn from other people: held against the other-people floors
    "own_answers_floors",
    "other_people_floors",
    "known_truth",  # computed with the very model that people were drawn from: no floor to beat on anyone else
    "checks",
)
BLOCKS: dict[str, str] = {
    METHODS: "Methods",
    PEOPLE_METHODS: "Methods that learn from others' answers",
    OWN_FLOORS: "Own-answers floors",
    PEOPLE_FLOORS: "Other-people floors",
    KNOWN_TRUTH: "Known truth",
    CHECKS: "Check",
}


UNIT = "pas"  # the row that all ratios of costs are to


def is_constant(row: str) -> bool:
    """Whether the row of this name answers every item with one option."""
    return row.startswith("constant_")


def is_given(row: str) -> bool:
    """Whether the row of this name holds answers from somebody's file (`palign-bench score`)."""
    return row.startswith("given_")
