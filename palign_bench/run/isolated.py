"""``cost=isolated``: every method in its own process, so that no earlier one's memory or caches are in its costs."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from palign_bench.settings import UserError, is_whole

COSTS = ("in_passing", "isolated")
Result = TypeVar("Result")


class IsolationError(RuntimeError):
    """The process that measured died without saying why: killed, or out of memory."""


def cost_repeats(settings: Mapping[str, Any]) -> int | None:
    """How often each cell is computed under ``cost=isolated``; None under ``in_passing``. Raises UserError."""
    cost, repeats = settings.get("cost", COSTS[0]), settings.get("cost_repeats", 1)
    if cost not in COSTS:
        raise UserError(f"cost={cost}: choose one of {', '.join(COSTS)}.")
    if not is_whole(repeats, 1):
        raise UserError(f"cost_repeats={repeats}: choose a whole number, 1 or more.")
    return repeats if cost == "isolated" else None


def in_own_process(work: Callable[..., Result], *arguments: Any, what: str) -> Result:
    """Do ``work`` in a new process. Returns what it returned and raises what it raised.

    The process ends with this one, whether this one is interrupted or killed. Raises IsolationError, naming ``what``
    was measured, where it died without a word.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn, initializer=_end_with_parent) as pool:
        try:
            return pool.submit(work, *arguments).result()
        except BrokenProcessPool as error:
            raise IsolationError(f"the process that measured {what} was killed, or ran out of memory") from error
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _end_with_parent() -> None:
    """Watch the process that made this one: when it is gone, nobody waits for what is measured here."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
