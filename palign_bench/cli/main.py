"""The `palign-bench` command: Hydra composes a run or a sweep, the runner does it, the report shows it.

The subcommands beside a run are in `palign_bench.cli.commands`.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import hydra
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf

from palign_bench.cli.arguments import (
    as_part_of_the_sweep,
    as_typed,
    at_home,
    check_changes,
    chooses,
    command_id,
    expanded,
    options_first,
    swept_by_experiment,
)
from palign_bench.cli.commands import dispatch
from palign_bench.cli.errors import one_line
from palign_bench.settings import Settings, UserError, conf_folder, counted

if TYPE_CHECKING:
    from palign_bench.run.command import Left
    from palign_bench.run.job import Job
    from palign_bench.run.session import Session

_QUERIES = ("--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i", "--version", "--shell-completion", "-sc")

OmegaConf.register_new_resolver("at_home", lambda runs: expanded(str(runs)), replace=True)  # for Hydra's own folder


def _job(session: Session, jobs: list[Job], config: DictConfig) -> int:
    """Compute one Hydra job in the process where a launcher starts it, to which Hydra pickles the session.

    Adds it to ``jobs``, which are of this process. Returns how many cells failed.
    """
    from hydra.core.hydra_config import HydraConfig

    from palign_bench.run import command
    from palign_bench.run.job import Job

    number = OmegaConf.select(OmegaConf.create({"job": HydraConfig.get().job}), "job.num", default=0)
    try:
        jobs.append(Job.of(_settings(config), session))
        return command.run(jobs[-1], session, int(number))
    except UserError as error:
        if session.is_worker:
            raise  # only what is raised reaches the command's own process
        session.note(error)  # counted, not raised: Hydra would keep the other jobs from being computed
        return 0


def main() -> None:
    """The command line; `palign_bench.__main__` says what its exit codes are. Raises KeyboardInterrupt."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us instead of Hydra's many-line printer
    _ready_output()
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = partial(_interrupt_again, sys.unraisablehook)
    arguments = sys.argv[1:]
    try:
        asked = dispatch(arguments)
        if asked is None:
            sys.stdout.flush()  # that nobody reads it is told here, not while Python ends
            return
        arguments = options_first(as_typed(asked, in_full=True))
        if any(each in _QUERIES or each.startswith(("--cfg", "--info")) for each in arguments):
            _tell(arguments)
            return
        left = run(arguments)
    except BrokenPipeError:
        if not _reader_has_left():
            raise
        sys.exit(141)  # as a shell counts a program that a closed pipe ended
    except Exception as error:
        line = one_line(error, [*swept_by_experiment(arguments), *arguments])
        if line is None:
            raise
        sys.exit(f"palign-bench: {line}")
    if left is None:
        sys.exit(1)
    if left.missing:
        failed = f", {left.failed} of them failed: tracebacks lie beside the finished ones" if left.failed else ""
        cells = counted(left.missing, "cell is", "cells are")
        sys.exit(f"palign-bench: {cells} missing{failed}. The same command does the rest.")


def _ready_output() -> None:
    """Make standard output take whatever is printed, also where it is closed or its encoding lacks our signs."""
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _reader_has_left() -> bool:
    """Whether standard output is a closed pipe, as after `| head`; if so, what is left to print goes nowhere."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    has_left = any(events & select.POLLERR for _, events in output.poll(0))
    if has_left:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return has_left


def _tell(arguments: Sequence[str]) -> None:
    """Print what Hydra tells of the configuration, but for the file that models share, which is no option."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(told):
            _hydra(lambda config: None, arguments)
    finally:  # Hydra may exit
        print(told.getvalue().replace("_base, ", ""), end="", flush=True)


def run(arguments: Sequence[str]) -> Left | None:
    """Resolve every job of the command, plan them all, compute them, and show their tables.

    Returns what is left of it; None after a mistake of the user's, which has been told.
    """
    check_changes(arguments)
    composed = _composed(arguments)

    from palign_bench.run.session import Session
    from palign_bench.run.survey import any_sound

    session = Session(command_id(arguments), arguments)
    if composed and not any_sound(composed, session):
        return None

    from palign_bench.run import command  # PyTorch and transformers take seconds

    jobs = command.resolve(composed, session)
    if session.mistakes:
        return None
    command.plan(jobs, session)
    if not composed or chooses(arguments, "hydra/launcher"):
        computed: list[Job] = []
        try:
            _hydra(partial(_job, session, computed), arguments)
        except Exception:  # of a process that a launcher started; what others have finished is shown all the same
            command.show_tables(jobs, session)
            raise
        jobs = jobs or computed
    else:
        command.compute_all(jobs, session)
    left = command.show_tables(jobs, session)
    return None if session.mistakes else left


def _composed(arguments: Sequence[str]) -> list[Settings]:
    """The settings of every job, as Hydra composes them; none where a sweeper decides on later jobs by earlier ones."""
    if chooses(arguments, "hydra/sweeper"):
        return []
    found: list[Settings] = []
    kept = [each for each in arguments if not each.startswith(("hydra/launcher", "hydra.launcher"))]
    with tempfile.TemporaryDirectory(prefix="palign-bench-") as folder:  # a command that is refused leaves nothing
        nowhere = [f"hydra.run.dir='{folder}'", f"hydra.sweep.dir='{folder}'", "hydra.output_subdir=null"]
        with _each_job_composed_once(), _interrupts_noted() as raise_noted:

            def compose(config: DictConfig) -> None:
                found.append(_settings(config))
                raise_noted()

            _hydra(compose, [*kept, *nowhere])
    return found


@contextlib.contextmanager
def _interrupts_noted() -> Iterator[Callable[[], None]]:
    """Within the block Ctrl-C and SIGTERM wait for the function that it yields, or for the block's end.

    OmegaConf drops what is raised while it looks something up, an interruption too, or fails in other words.
    """
    noted: list[int] = []
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}

    def raise_noted() -> None:
        if noted:
            raise KeyboardInterrupt

    for each, handler in before.items():
        if handler is not signal.SIG_IGN:  # as a shell starts commands in the background
            signal.signal(each, lambda number, frame: noted.append(number))
    try:
        yield raise_noted
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    raise_noted()


@contextlib.contextmanager
def _each_job_composed_once() -> Iterator[None]:
    """Hydra composes every job of a sweep before the first, to see that it can: here that is all that is asked.

    A job takes a fifth of a second of it, of which `experiment=effects` has 39.
    """
    own = Sweeper.validate_batch_is_legal
    Sweeper.validate_batch_is_legal = lambda *_: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Sweeper.validate_batch_is_legal = own  # type: ignore[method-assign]


def _hydra(task: Callable[[DictConfig], Any], arguments: Sequence[str]) -> None:
    sys.argv[1:] = as_part_of_the_sweep(arguments)
    hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(task)()


def _settings(config: DictConfig) -> Settings:
    return at_home(OmegaConf.to_container(config, resolve=True))


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # a cluster's preemption ends like Ctrl-C: the write under way is finished or not begun


def _interrupt_again(otherwise: Callable[[Any], object], ignored: Any) -> None:
    """Send a Ctrl-C once more that Python has dropped: one that meets a finalizer is printed and forgotten."""
    if not isinstance(ignored.exc_value, KeyboardInterrupt):
        otherwise(ignored)
        return
    # When the finalizer has ended; a command in the background may have been started to ignore Ctrl-C itself.
    again = threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGTERM))
    again.daemon = True
    again.start()
