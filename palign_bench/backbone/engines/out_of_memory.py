"""When memory runs out: smaller batches for that one cell, and the usual ones again for the next.

Another batch geometry may move the last bits of a log-probability, so a record tells when it had one.
"""

import gc
import re
from collections.abc import Callable
from typing import TypeVar

import torch

from palign_bench.backbone.engines.base import Engine

BATCH_DIVISORS = (1, 4, 64)  # of the positions in one forward pass, tried one after the other
AGAIN = "memory ran out, again with smaller batches"
_WORDS = re.compile("can't allocate memory|not enough memory|out of memory", re.IGNORECASE)

Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: CUDA and Python have types for it, torch on a CPU only words."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and _WORDS.search(str(error)) is not None


def within_memory(engine: Engine, attempt: Callable[[int], Result], say: Callable[[], None]) -> Result:
    """What ``attempt(divisor)`` returns with the first of `BATCH_DIVISORS` that fits into memory.

    Raises what the attempt raises when that is no lack of memory, or when the smallest batches do not fit either.
    """
    usual = engine.positions
    try:
        for divisor in BATCH_DIVISORS[:-1]:
            engine.positions = max(1, usual // divisor)
            try:
                return attempt(divisor)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            say()
            free_memory()  # out here: the exception has let go of the tensors
        engine.positions = max(1, usual // BATCH_DIVISORS[-1])
        return attempt(BATCH_DIVISORS[-1])
    finally:
        engine.positions = usual


def free_memory() -> None:
    """Give back what nothing refers to any more, also to the GPU's driver."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
