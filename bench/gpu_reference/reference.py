"""Running the stages, each once, and the dated folder that is made of what they left in their ledger."""

import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.gpu_reference.figures import figures
from bench.gpu_reference.stages import Stage
from palign_bench.costs.machine import provenance
from palign_bench.files import LedgerError, canonical, read_json, write_atomically, write_json
from palign_bench.ledger.plan import Plan
from palign_bench.report import make_report
from palign_bench.report.document import Document, Table, Text, markdown

_GRACE = 60.0  # seconds for the person under way, after a stage's time is over
_LEAST = 20.0  # seconds below which no stage is begun


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

    def do(self, stage: Stage, free_gib: float | None) -> None:
        """Run a stage that is not done, within its time and what is left of all; keep what became of it."""
        before, command = self.outcomes.get(stage.name), _fingerprint(stage)
        if before and before.command != command:
            before = None
        if before and before.state == "done":
            self.say(f"{stage.name}: done before")
            return
        spent = before.seconds if before else 0.0
        left = self._ends - time.monotonic()
        if free_gib is not None and free_gib < stage.gib:
            outcome = Outcome("skipped", spent, f"needs {stage.gib:.0f} GiB of GPU memory, {free_gib:.0f} are free")
        elif left < _LEAST:
            outcome = Outcome(
                before.state if before else "skipped", spent, "no time was left; the same command does it"
            )
        else:
            self.say(
                f"{stage.name} ({stage.shows}), at most {min(stage.seconds, left):.0f} s: {shlex.join(stage.command)}"
            )
            outcome = self._run(stage, min(stage.seconds, left))
            outcome.seconds += spent
        outcome.command = command
        self.outcomes[stage.name] = outcome
        write_json(self.ledger / "stages.json", {name: asdict(each) for name, each in self.outcomes.items()})
        self.say(f"{stage.name}: {outcome.state}{f', {outcome.note}' if outcome.note else ''}")

    def _run(self, stage: Stage, seconds: float) -> Outcome:
        log = self.ledger / "logs" / f"{stage.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        offline = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "WANDB_MODE": "offline"}
        with log.open("a", encoding="utf-8") as output:
            process = subprocess.Popen(stage.command, stdout=output, stderr=subprocess.STDOUT, env=offline)
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
        """The dated folder: each stage's tables, and a page with the outcomes and the figures drawn from them."""
        rows = []
        for stage in found:
            outcome = self.outcomes.get(stage.name, Outcome("skipped", 0.0, "not begun"))
            cells = self._tables(stage)
            rows.append([stage.name, stage.shows, outcome.state, f"{outcome.seconds:.0f}", cells, outcome.note])
        about = provenance()
        gpu = ", ".join((about["gpus"] or {}).get("names", [])) or "no GPU"
        code = f"commit {about['git_commit']}{' with uncommitted changes' if about['git_dirty'] else ''}"
        packages = ", ".join(f"{name} {about['packages'][name]}" for name in ("torch", "transformers", "trl"))
        machine = f"{gpu}, {about['processor']}, {about['cores']} cores"
        told = [f"{datetime.now(UTC):%Y-%m-%d}, {machine}; {packages}; {code}. Made by `make gpu-reference`."]
        if rehearsal:
            told.insert(0, "A REHEARSAL on a CPU with tiny shapes: no number here says anything about a GPU.")
        blocks: list[Table | Text] = [
            Text(told),
            Table(["stage", "what", "outcome", "seconds", "people", "note"], rows, "Stages"),
            *figures(self.ledger),
        ]
        write_atomically(self.folder / "README.md", markdown(Document("What one GPU shows", blocks)))
        return self.folder / "README.md"

    def _tables(self, stage: Stage) -> str:
        """Copy a stage's tables into the folder. Returns how many people its rows have, as text."""
        if stage.bench:
            return self._copied([self.ledger / "bench" / f"bench.{kind}" for kind in ("csv", "md")], "")
        try:
            plans = Plan.all(self.ledger, stage.name)
        except LedgerError:
            return ""
        reports = [(plan, make_report(plan).report) for plan in plans]
        counts = [row["respondents"] for _, report in reports for row in report.rows]
        for plan, _ in reports:
            kept = [plan.folder / f"{stage.name}.{kind}" for kind in ("csv", "md")] + [*plan.folder.glob("costs.*")]
            self._copied([path for path in kept if path.suffix in (".csv", ".md")], stage.name)
        return f"{min(counts)}–{max(counts)}" if counts and min(counts) < max(counts) else str(max(counts, default=0))

    def _copied(self, paths: Sequence[Path], stage: str) -> str:
        for path in paths:
            if path.exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                name = path.name if path.stem == stage or not stage else f"{stage}_{path.name}"
                shutil.copyfile(path, self.folder / name)
        return ""


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
