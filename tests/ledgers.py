"""Small ledgers, written as a command writes them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from palign_bench.ledger.cells import CellFolder
from palign_bench.ledger.plan import Command, Plan, PlannedJob, Row
from palign_bench.questionnaire.inventory import ipip_neo_300
from tests.rows import title_and_block_of


def kept_folder(
    runs: Path, name: str, identity: Mapping[str, Any], config: Mapping[str, Any] | None = None
) -> CellFolder:
    """A cell folder that is there."""
    folder = CellFolder.at(runs, name, identity)
    folder.keep(config or {}, identity)
    return folder


def row_of(name: str, folder: CellFolder, ids: Sequence[str]) -> Row:
    """A row with the title and block of its name."""
    return Row(name, *title_and_block_of(name), folder, tuple(ids))


def plan_of(runs: Path, rows: Sequence[Row], about: Mapping[str, Any], command: str = "command") -> Plan:
    """The one table of a command of table1 that plans these rows in one job."""
    made = Command(runs, "table1", command)
    usual = {"model": "tiny", "protocol": "corrected", "inventory": ipip_neo_300().outline()}
    made.write([], [PlannedJob(0, tuple(rows), usual | dict(about))])
    (plan,) = made.tables()
    return plan
