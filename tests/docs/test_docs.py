"""README and docs: no broken link, short enough to be read, and every command in them can be typed."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from palign_bench.cli.arguments import as_typed, check_changes
from palign_bench.cli.commands import SUBCOMMANDS, parser_of
from palign_bench.settings import conf_folder

CHECKOUT = Path(__file__).parents[2]
README = CHECKOUT / "README.md"
PAGES = (README, *sorted((CHECKOUT / "docs").rglob("*.md")))
TARGETS = set(re.findall(r"^([a-z][a-z0-9-]*)(?: [a-z0-9-]+)*:", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
NOT_HERE = {"cheerful"}  # the page that shows how to add a method adds it first


def commands() -> Iterator[tuple[str, str]]:
    """Page and text of every line of a code block that calls `palign-bench` or `make`, without its comment."""
    for page in PAGES:
        for block in re.findall(r"^```\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                typed = re.sub(r"\s+#.*", "", line).strip()
                if typed.startswith(("palign-bench", "make ")):
                    yield page.relative_to(CHECKOUT).as_posix(), typed


COMMANDS = sorted(set(commands()))


def test_there_are_commands_to_try() -> None:
    assert len(COMMANDS) > 30


@pytest.mark.parametrize(("page", "typed"), COMMANDS)
def test_every_command_can_be_typed(page: str, typed: str) -> None:
    program, *arguments = shlex.split(typed.split(" && ")[0])
    arguments = [each for each in arguments if each != "…"]
    if program == "make":
        assert {each for each in arguments if "=" not in each} <= TARGETS
        return
    if arguments and arguments[0] in SUBCOMMANDS and arguments[0] != "run":
        first, *rest = [each for each in arguments if not each.startswith("[")]
        parser_of(first).parse_intermixed_args([each for each in rest if not each.startswith("runs=")])
        return
    settings = [each for each in as_typed([a for a in arguments if a not in ("run", "-m")]) if "=" in each]
    check_changes(settings)
    swept = [
        override for override in OverridesParser.create().parse_overrides(settings) if override.is_sweep_override()
    ]
    plain = [each for each in settings if each.partition("=")[0] not in {override.key_or_group for override in swept}]
    firsts = [f"{override.key_or_group}={next(override.sweep_string_iterator())}" for override in swept]
    if any(each.partition("=")[2] in NOT_HERE for each in firsts):
        firsts = []
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        compose("config", [*firsts, *plain])


def test_the_readme_is_one_screen_and_a_half() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150 and len(text.split()) <= 1100


def test_links_and_pictures_of_the_readme_exist() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README.read_text(encoding="utf-8"))
    assert targets and all((CHECKOUT / each).exists() for each in targets if "://" not in each)


def test_the_documentation_builds_without_a_broken_link(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is optional")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(build, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "index.html").exists()
