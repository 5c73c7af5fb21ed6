"""What a command planned: the rows of its tables and the people of each, written before the first cell is computed."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

from palign_bench.files import LedgerError, canonical, read_json, write_json
from palign_bench.ledger.cells import CellFolder
from palign_bench.ledger.record import Record
from palign_bench.settings import counted, options

UNNAMED = Path("FOLDER")  # stands for the ledger's folder in files that are passed on: no place on this machine in them
LAYOUT = 2  # of `commands/`; the plans of layout 1 lay in each table's folder, under `plan/`


@dataclass(frozen=True)
class Row:
    """A line of the table: one method with its settings on one model, source, protocol and seed.

    ``name``: identifies the method. ``title``, ``block``: how and where the table shows it. ``ids``: the respondents
    that the command asked for.
    """

    name: str
    title: str
    block: str
    folder: CellFolder
    ids: tuple[str, ...]

    def missing(self) -> list[str]:
        """Planned respondents without a finished cell, in plan order."""
        finished = self.folder.finished()
        return [each for each in self.ids if each not in finished]

    def of(self, ids: Iterable[str]) -> Self:
        """The same row for these respondents alone."""
        return replace(self, ids=tuple(ids))


@dataclass(frozen=True)
class PlannedJob:
    """The rows of one job.

    ``about``: what the table says of model, protocol and people. ``setting``: every setting, by dotted key, that two
    rows of one table must share.
    """

    order: int
    rows: tuple[Row, ...]
    about: Mapping[str, Any]
    setting: Mapping[str, Any] = field(default_factory=dict)


class Command:
    """One command of an experiment: what was typed and all that it planned, in ``runs/<experiment>/commands/<id>/``.

    Shards and repetitions of a command share its id, and so its plan, which always holds everybody.
    """

    def __init__(self, runs: Path, experiment: str, id_: str):
        self.runs = runs
        self.experiment = experiment
        self.id = id_
        self.folder = runs / experiment / "commands" / id_

    @classmethod
    def all(cls, runs: Path, experiment: str) -> list[Self]:
        """The experiment's commands, the last one typed at the end. Raises LedgerError when there is none."""
        found = cls._found(runs, experiment)
        if not found:
            raise LedgerError(_nothing(runs, experiment))
        return sorted(found, key=lambda command: command.started)

    @classmethod
    def _found(cls, runs: Path, experiment: str) -> list[Self]:
        paths = (runs / experiment / "commands").glob("*/command.json")
        return [cls(runs, experiment, path.parent.name) for path in paths]

    @classmethod
    def last(cls, runs: Path, experiment: str) -> Self:
        """The experiment's last command. Raises LedgerError when there is none."""
        return cls.all(runs, experiment)[-1]

    @property
    def started(self) -> str:
        """When it was typed last: UTC, ISO 8601, so that texts sort as times. Raises LedgerError for a damaged file.

        Later than what was typed before it, whatever the clock said: see `start`.
        """
        started = str(self._typed("started", str))
        try:
            datetime.fromisoformat(started)
        except ValueError as error:
            raise self._damaged(f"command.json: {error}") from error
        return started

    @property
    def arguments(self) -> list[str]:
        """What was typed, without ``retry=`` and ``shard=``. Raises LedgerError for a damaged file."""
        return [str(each) for each in self._typed("arguments", list)]

    def _typed(self, key: str, kind: type) -> Any:
        document = read_json(self.folder / "command.json")
        if not isinstance(document, dict) or not isinstance(document.get(key), kind):
            raise self._damaged(f"command.json lacks its {key}")
        return document[key]

    def _damaged(self, what: str) -> LedgerError:
        return LedgerError(
            f"the plan in {self.folder} is damaged ({what}). Delete that folder and type the same command again; "
            "finished cells lie elsewhere and stay."
        )

    def replaced(self, jobs: Sequence[PlannedJob] = ()) -> str | None:
        """A line on the plan that this command, of these jobs, is about to take the place of; None where there is none.

        Raises LedgerError where a command's file is damaged, with which no table could be shown in the end.
        """
        if self.experiment not in experiments(self.runs):
            return _nothing(self.runs, self.experiment) if _old_plans(self.runs, self.experiment) else None
        last = Command.last(self.runs, self.experiment)
        rows = [row for job in last.jobs() for row in job.rows]
        if last.id == self.id and {row.folder for row in rows} == {row.folder for job in jobs for row in job.rows}:
            return None
        cells = sum(len(row.ids) for row in rows)
        listed = f"which `palign-bench resume {self.experiment}{runs_option(self.runs)} --list` shows"
        return (
            f"{self.experiment}: this takes the place of the command of {last.started[:16].replace('T', ' ')} "
            f"({counted(len(rows), 'row', 'rows')}, {counted(cells, 'cell', 'cells')}), "
            f"{'whose words are the same' if last.id == self.id else listed}; name=OTHER keeps both tables."
        )

    def write(
        self, arguments: Sequence[str], jobs: Sequence[PlannedJob], parts: Iterable[tuple[int, int]] = ((1, 1),)
    ) -> None:
        """Store the whole plan; from then on the command counts as the experiment's last."""
        self.write_jobs(jobs, "plan")
        self.start(arguments, parts)

    def start(self, arguments: Sequence[str], parts: Iterable[tuple[int, int]]) -> None:
        """Note that the command was typed, and which parts of the people (index, count) are being computed.

        It counts as the last one typed also where a clock went backwards, or another host's is ahead.
        """
        for index, count in parts:
            write_json(self.folder / "parts" / f"{index}of{count}.json", {})
        kept = [each for each in arguments if not each.startswith(("retry=", "shard="))]
        others = [each.started for each in self._found(self.runs, self.experiment) if each.id != self.id]
        after = (datetime.fromisoformat(each).astimezone(UTC) + timedelta(microseconds=1) for each in others)
        started = max([datetime.now(UTC), *after]).isoformat(timespec="microseconds")
        write_json(self.folder / "command.json", {"layout": LAYOUT, "arguments": kept, "started": started})

    def write_jobs(self, jobs: Sequence[PlannedJob], name: str) -> None:
        """Store some jobs of the plan under a name of their own, for sweeps whose jobs are not known at the start."""
        people: dict[tuple[str, ...], int] = {}  # most rows share everybody's ids, which may be many

        def kept(row: Row) -> Record:
            cells = row.folder.path.relative_to(self.runs).as_posix()
            shown = {"name": row.name, "title": row.title, "block": row.block}
            return shown | {"cells": cells, "people": people.setdefault(row.ids, len(people))}

        planned = [
            {"order": job.order, "about": dict(job.about), "setting": dict(job.setting), "rows": [*map(kept, job.rows)]}
            for job in jobs
        ]
        everybody = [list(ids) for ids in people]
        write_json(self.folder / f"{name}.json", {"layout": LAYOUT, "people": everybody, "jobs": planned})

    def jobs(self) -> list[PlannedJob]:
        """All planned jobs in order. Raises LedgerError for a plan that cannot be read."""
        try:
            paths = [self.folder / "plan.json", *sorted(self.folder.glob("job-*.json"))]
            jobs = [job for path in paths if path.exists() for job in self._jobs(read_json(path))]
            return sorted(jobs, key=lambda job: job.order)
        except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
            raise self._damaged(f"{type(error).__name__}: {error}") from error

    def _jobs(self, document: Record) -> list[PlannedJob]:
        people = [tuple(map(str, ids)) for ids in document["people"]]

        def row(kept: Record) -> Row:
            folder, ids = CellFolder(self.runs / kept["cells"]), people[kept["people"]]
            return Row(str(kept["name"]), str(kept["title"]), str(kept["block"]), folder, ids)

        return [
            PlannedJob(
                int(job["order"]),
                tuple(map(row, job["rows"])),
                {"model": job["about"]["model"], "protocol": job["about"]["protocol"], **job["about"]},
                dict(job["setting"]),
            )
            for job in document["jobs"]
        ]

    def tables(self) -> "list[Plan]":
        """The command's tables: one for each combination of settings that rows must share to be compared."""
        groups: dict[str, list[PlannedJob]] = {}
        for job in self.jobs():
            groups.setdefault(canonical(job.setting), []).append(job)
        settings = [group[0].setting for group in groups.values()]
        bases = ["{model}-{protocol}".format(**group[0].about) for group in groups.values()]
        plans: list[Plan] = []
        for number, group in enumerate(groups.values()):
            rivals = [settings[i] for i, base in enumerate(bases) if base == bases[number] and i != number]
            apart = tuple(_what_differs(settings[number], rivals))
            name = "-".join((bases[number], *apart))
            twins = sum(name == plan.name.partition("~")[0] for plan in plans)
            plans.append(Plan(self, f"{name}~{twins + 1}" if twins else name, tuple(group), apart))
        return plans

    def absent_shards(self) -> list[str]:
        """A note on the shards that nobody has started, where the command was only ever run in shards."""
        paths = (self.folder / "parts").glob("*of*.json")
        names = (re.fullmatch(r"([1-9]\d*)of([1-9]\d*)\.json", path.name) for path in paths)
        parts = sorted((int(name[2]), int(name[1])) for name in names if name)
        absent = {count: sorted({*range(1, count + 1)} - {i for n, i in parts if n == count}) for count, _ in parts}
        covered = Fraction(0)  # of the people, from the first on, by shards of whatever count
        for start, end in sorted((Fraction(i - 1, n), Fraction(i, n)) for n, i in parts):
            covered = max(covered, end) if start <= covered else covered
        if covered == 1:
            return []
        named = {n: ", ".join(map(str, of[:10])) + (" …" if len(of) > 10 else "") for n, of in absent.items()}
        return [f"Shards not started yet: {of} of {n}; the table lacks their people." for n, of in named.items()]


@dataclass(frozen=True)
class Plan:
    """One table of a command: the rows that are compared in it.

    ``apart``: the settings that tell it from the command's other tables of its model and protocol.
    """

    command: Command
    name: str
    jobs: tuple[PlannedJob, ...]
    apart: tuple[str, ...] = ()

    @property
    def runs(self) -> Path:
        """The ledger's folder."""
        return self.command.runs

    @property
    def folder(self) -> Path:
        """Where the table's files are written."""
        return self.runs / self.command.experiment / self.name

    @classmethod
    def all(cls, runs: Path, experiment: str | None) -> "list[Plan]":
        """The tables of the last command of one experiment (None: of every one in the ledger).

        Raises LedgerError when there is none.
        """
        names = [experiment] if experiment else experiments(runs)
        plans = [plan for name in names for plan in Command.last(runs, name).tables()]
        if not plans:
            raise LedgerError(_nothing(runs, experiment))
        return plans

    def read(self) -> tuple[list[Row], Record]:
        """The rows in order, those that jobs share made one, and what is said about them."""
        rows: dict[tuple[str, CellFolder], Row] = {}
        for row in (row for job in self.jobs for row in job.rows):
            before = rows.get((row.name, row.folder))
            rows[row.name, row.folder] = row.of(dict.fromkeys((*before.ids, *row.ids))) if before else row
        notes = [f"This table: {', '.join(self.apart)}; the command has others beside it."] if self.apart else []
        notes += [note for job in self.jobs for note in job.about.get("notes", ())]
        absent = self.command.absent_shards()
        if absent and any(row.missing() for row in rows.values()):  # else other commands or machines computed them
            notes += absent
        about = dict(self.jobs[-1].about) if self.jobs else {}
        return list(rows.values()), about | ({"notes": list(dict.fromkeys(notes))} if notes else {})


def experiments(runs: Path) -> list[str]:
    """The experiments that a ledger holds commands of."""
    return sorted({path.parts[-4] for path in runs.glob("*/commands/*/command.json")})


def runs_option(runs: Path) -> str:
    """What a command that is told needs to find this ledger, after a space; empty for the default one."""
    return "" if runs == Path("runs") else f" --runs {shlex.quote(str(runs))}"


def _what_differs(setting: Mapping[str, Any], rivals: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fewest settings, in order, that tell one from its rivals, as text for a folder: ``seed=1``."""
    told = []
    for key, value in setting.items():
        others = [rival for rival in rivals if rival.get(key) == value]
        if len(others) < len(rivals):
            told.append(f"{key.removesuffix('.name')}={_plain(value)}")
            rivals = others
    return told


def _plain(value: Any) -> str:
    """A setting as part of a folder's name; of a path its last part."""
    text = str(value).rstrip("/").rpartition("/")[2]
    return re.sub(r"[^\w.=+@-]+", "_", text)[:60].strip(".") or "_"


def _old_plans(runs: Path, experiment: str | None) -> list[Path]:
    """Plans of layout 1."""
    return sorted(runs.glob(f"{experiment or '*'}/*/plan/last.json"))


def _nothing(runs: Path, experiment: str | None) -> str:
    where = runs / experiment if experiment else runs
    known = experiment is None or experiment in options("experiment")
    typed = f"experiment={experiment or 'table1'}" if known else f"experiment=table1 name={experiment}"
    again = f"palign-bench {typed}"
    old = _old_plans(runs, experiment)
    if old:
        return (
            f"{where} was written by an earlier version: its plans ({old[0].parent}) and cells are of another layout, "
            f"which this version does not read. Nothing of it is touched; run `{again}` again to compute it anew."
        )
    if experiment and (others := experiments(runs)):
        return f"{where} holds no table; {runs} holds those of {', '.join(others)}."
    return f"{where} holds no table: run `{again}` first, or name another ledger with --runs FOLDER."
