"""Hydra's errors as one line that helps."""

import errno
import shlex
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, OverrideParseException

from palign_bench.cli.errors import one_line
from palign_bench.settings import UserError


@pytest.mark.parametrize("value", ["a(b", "a b)", "[1,", "{x", "it's (1)", 'a "b" (', "ends (\\", 'q\\"('])
def test_the_quoting_that_is_shown_works(value: str) -> None:
    """Typed into a shell as it stands, it gives Hydra the value that was meant."""
    parser = OverridesParser.create()
    with pytest.raises(OverrideParseException) as caught:
        parser.parse_overrides([f"method.writer={value}"])
    told = one_line(caught.value, [])
    assert told is not None and told.startswith(f"method.writer={value}: quote a value that has spaces or any of ")
    (typed,) = shlex.split(told.partition(" in it: ")[2])
    assert parser.parse_override(typed).value() == value


def test_a_word_without_a_value_is_told() -> None:
    with pytest.raises(OverrideParseException) as caught:
        OverridesParser.create().parse_overrides(["seed 3"])
    assert one_line(caught.value, []) == "seed 3: give a setting as KEY=VALUE (see palign-bench --help)."


def test_several_values_without_a_sweep_and_broken_yaml_are_told(tmp_path: Path) -> None:
    ambiguous = ConfigCompositionException("Ambiguous value for argument 'seed=0,1'\n1. To use it as a list, use ...")
    assert one_line(ambiguous, []) == "seed=0,1: several values are a sweep; add -m, or quote one value with a comma."
    (tmp_path / "mine.yaml").write_text("name: mine\nalphas: [1, 2\n")
    with pytest.raises(yaml.YAMLError) as caught, (tmp_path / "mine.yaml").open() as file:
        yaml.safe_load(file)
    told = one_line(caught.value, [])
    assert told is not None and told.startswith(f"{tmp_path / 'mine.yaml'}, line 3: ") and "\n" not in told


@pytest.mark.parametrize("message", ["limit=x: give a whole number", "limit=x: give a whole number."])
def test_a_line_ends_with_one_full_stop(message: str) -> None:
    assert one_line(UserError(message), []) == "limit=x: give a whole number."


def test_only_what_can_be_an_output_is_told_as_one() -> None:
    assert one_line(OSError(errno.ENOSPC, "No space left"), []) == (
        "writing failed, No space left: check where the output goes."
    )
    assert one_line(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), []) == "Connection refused."
    assert one_line(OSError(errno.ENOSPC, "No space left", "runs/x"), []) == (
        "runs/x: No space left. Check the place, or choose another with runs=PATH."
    )
