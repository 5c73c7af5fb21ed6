"""Running the stages, each once, and the dated folder that is made of what they left in their ledger."""

import hashlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from bench.gpu_reference.figures import benchmarks, costs_of, figures, last_plan, notes_of, table_of
from bench.gpu_reference.stages import Stage
from palign_bench.costs.machine import provenance
from palign_bench.files import canonical, read_json, write_atomically, write_json
from palign_bench.report.document import Document, Table, Text, render
from palign_bench.report.table import Report

_GRACE = 10.0  # seconds for whatever is under way, after a stage's time is over
_LEAST = 20.0  # seconds below which no stage is begun
_TOLD_FAILURES, _TOLD_LINES = 4, 12


@dataclass
class Outcome:
    """What became of a stage: ``state`` is done, partial, failed or skipped; ``seconds`` over all its runs."""

    state: str
    seconds: float = 0.0
    note: str = ""
    command: str = ""  # of which it is the outcome: another command is another stage


class Reference:
    """All stages, their outcomes in the ledger's folder, and the dated folder that is made of them."""

    def __init__(self, ledger: Path, folder: Path, budget: float, say: Callable[[str], None]):
        self.ledger, self.folder, self.say = ledger, folder, say
        self._ends = time.monotonic() + budget
        self.outcomes: dict[str, Outcome] = {}
        if (ledger / "stages.json").exists():
            self.outcomes = {name: Outcome(**kept) for name, kept in read_json(ledger / "stages.json").items()}

    def is_done(self, stage: Stage) -> bool:
        """Whether this very command was done before."""
        before = self.outcomes.get(stage.name)
        return before is not None and before.state == "done" and before.command == _fingerprint(stage)

    def do_all(self, chosen: Sequence[Stage], gib: float | None) -> None:
        """Run these stages in order. What one leaves of its time is shared by those after it."""
        for number, stage in enumerate(chosen):
            later = sum(each.seconds for each in chosen[number + 1 :] if not self.is_done(each))
            self.do(stage, gib, later)

    def do(self, stage: Stage, gib: float | None, later: float = 0.0) -> None:
        """Run a stage that is not done, in its share of the time that is left, and keep what became of it.

        ``gib``: memory of the GPU. ``later``: seconds that the stages after it need at least; where that is more than
        is left, it is they who wait.
        """
        if self.is_done(stage):
            self.say(f"{stage.name}: done before")
            return
        before, command = self.outcomes.get(stage.name), _fingerprint(stage)
        before = before if before and before.command == command else None
        spent = before.seconds if before else 0.0
        left = self._ends - time.monotonic()
        if gib is not None and gib < stage.gib:
            outcome = Outcome("skipped", spent, f"needs {stage.gib:.0f} GiB of GPU memory, {gib:.0f} are there")
        elif left < _LEAST:
            outcome = Outcome(
                before.state if before else "skipped", spent, "no time was left; the same command does it"
            )
        else:
            seconds = min(left, max(stage.seconds, left * stage.seconds / (stage.seconds + later)))
            typed = shlex.join(stage.command(seconds))
            self.say(f"{stage.name} ({stage.shows}), at most {seconds:.0f} s: {typed}")
            self._keep(stage, Outcome("partial", spent, "it was interrupted; the same command goes on", command))
            outcome = self._run(stage, seconds)
            outcome.seconds += spent
        outcome.command = command
        self._keep(stage, outcome)
        told = f"{outcome.state}{f', {outcome.note}' if outcome.note else ''}"
        self.say("\n".join([f"{stage.name}: {told} ({outcome.seconds:.0f} s)", *self._failures(stage)]))

    def _keep(self, stage: Stage, outcome: Outcome) -> None:
        self.outcomes[stage.name] = outcome
        write_json(self.ledger / "stages.json", {name: asdict(each) for name, each in self.outcomes.items()})

    def _failures(self, stage: Stage) -> list[str]:
        """The ends of the tracebacks of failed cells, each once: the ledger may stay on a machine that was lent."""
        plan = last_plan(self.ledger, stage.name) if stage.rows else None
        rows = plan.read()[0] if plan else []
        kept = [read_json(path) for row in rows for path in sorted(row.folder.path.rglob("*.error.json"))]
        found = dict.fromkeys("\n".join(each["traceback"].splitlines()[-_TOLD_LINES:]) for each in kept)
        return list(found)[:_TOLD_FAILURES]

    def _run(self, stage: Stage, seconds: float) -> Outcome:
        log = self.ledger / "logs" / f"{stage.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        offline = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "WANDB_MODE": "offline"}
        with log.open("a", encoding="utf-8") as output:
            process = subprocess.Popen(stage.command(seconds), stdout=output, stderr=subprocess.STDOUT, env=offline)
            try:
                code: int | None = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
                _end(process)
            except BaseException:  # Ctrl-C: finished people stay
                _end(process)
                raise
        took = time.monotonic() - started
        if code is None:
            return Outcome("partial", took, f"its {seconds:.0f} s were over; the same command goes on")
        if code == 0:
            return Outcome("done", took)
        said = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
        over = any("row_seconds=" in line and "are over" in line for line in said[-400:])
        told = [line for line in said if line.startswith("palign-bench: ")] or said[-1:] or ["it said nothing"]
        return Outcome(
            "partial" if over else "failed", took, " ".join(told[-1].removeprefix("palign-bench: ").split())[:300]
        )

    def write(self, found: Sequence[Stage], rehearsal: bool) -> Path:
        """The dated folder: a page with the outcomes, the stages' tables and the figures drawn from them, and as CSV
        all rows, all costs and the benchmark.
        """
        notes = [note for stage in found if stage.rows for note in notes_of(self.ledger, stage.name)]
        tables = {stage.name: table_of(self.ledger, stage.name) for stage in found if stage.rows}
        reports = {name: report for name, report in tables.items() if report is not None}
        rows = []
        for stage in found:
            outcome = self.outcomes.get(stage.name, Outcome("skipped", 0.0, "not begun"))
            people = _people(reports.get(stage.name))
            rows.append([stage.name, stage.shows, outcome.state, f"{outcome.seconds:.0f}", people, outcome.note])
        about = provenance()
        gpus = about["gpus"] or {}
        gpu = (
            f"{', '.join(gpus['names'])} (driver {gpus['driver'] or 'unknown'}, CUDA {gpus['cuda']})"
            if gpus
            else "no GPU"
        )
        dirty = " with uncommitted changes" if about["git_dirty"] else ""
        code = f"commit {about['git_commit']}{dirty}" if about["git_commit"] else "a copy without its git history"
        told = ("torch", "transformers", "trl", "peft", "bitsandbytes")
        packages = ", ".join(f"{name} {about['packages'][name]}" for name in told)
        machine = f"{gpu}, {about['cores']} cores, Python {about['python']}"
        head = [f"{datetime.now(UTC):%Y-%m-%d}, {machine}; {packages}; {code}. Made by `make gpu-reference`."]
        if rehearsal:
            head.insert(0, "A REHEARSAL on a CPU with tiny shapes: no number here says anything about a GPU.")
        blocks: list[Table | Text] = [
            Text(head),
            Table(["stage", "what", "outcome", "seconds", "people", "note"], rows, "Stages"),
            *([Text(notes, "Notes", listed=True)] if notes else []),
            *figures(self.ledger, reports),
        ]
        write_atomically(self.folder / "README.md", render(Document("What one GPU shows", blocks), "md"))
        if reports:
            frames = {name: report.frame for name, report in reports.items()}
            write_atomically(self.folder / "rows.csv", pd.concat(frames, names=["stage", None]).to_csv())
            write_atomically(self.folder / "costs.csv", pd.DataFrame(costs_of(reports)).to_csv(index=False))
        bench = benchmarks(self.ledger)
        if bench is not None:
            write_atomically(self.folder / "bench.csv", bench.to_csv(index=False))
        return self.folder / "README.md"


def _people(report: Report | None) -> str:
    """How many people a table's rows have, from the fewest to the most."""
    counts = sorted({int(row["respondents"]) for row in report.rows}) if report else []
    return "–".join(map(str, [counts[0], counts[-1]] if len(counts) > 1 else counts))


def _fingerprint(stage: Stage) -> str:
    return hashlib.sha256(canonical(list(stage.arguments)).encode()).hexdigest()[:12]


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ask a command to stop, which it does as after Ctrl-C (one in the background ignores that); then kill it."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(sign)
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                continue
