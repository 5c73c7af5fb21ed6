"""What is told of a row while it is computed."""

from contextlib import closing

import pytest

from palign_bench.run.progress import NAMED_ALIKE, Progress


def test_the_time_left_counts_what_a_cohort_was_trained_for() -> None:
    with closing(Progress("LoRA", 300)) as progress:
        progress.begun, progress.done = 16, 1
        assert progress._so_far(160) == "1 of 300 people, about 50 min left"
        progress.done = 16
        assert progress._so_far(192) == "16 of 300 people, about 57 min left"
        progress.failed = 2
        assert progress._so_far(192) == "16 of 300 people, about 57 min left, 2 failed"
        progress.done = 300
        assert progress._so_far(192) == "300 people tried in 192 s, 2 failed"


def test_of_many_who_fail_alike_a_few_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with closing(Progress("Mine", 9)) as progress:
        for number in range(8):
            progress.fail(f"p{number}", ValueError("no answers"))
        progress.fail("p8", ValueError("too many answers"))
    told = capsys.readouterr().err.splitlines()
    named = [f"Mine: person p{n} failed: ValueError: no answers" for n in range(NAMED_ALIKE)]
    rest = ["Mine: others fail alike; they are counted", "Mine: person p8 failed: ValueError: too many answers"]
    assert told == [*named, *rest] and progress.failed == 9
