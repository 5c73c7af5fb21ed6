"""Around one training: its clock and its curves, no noise, nothing on disk, no garbage kept."""

import contextlib
import gc
import io
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import PreTrainedModel, TrainerCallback

from baselines.training.attention import plain_attention
from baselines.training.dropout import turn_dropout_off
from palign_bench.backbone.parts.adapters import leaving_no_trace
from palign_bench.backbone.quiet import quiet
from palign_bench.costs.clock import Cost, charge, measure

_NOISY = ("accelerate", "bitsandbytes", "datasets", "peft", "transformers", "trl")
MOST_POINTS = 20


class TrainingClock(TrainerCallback):
    """Counts steps, keeps what the trainer logs, shows a bar on a terminal, and times what is not the model.

    Not the model: everything outside the loop (building the trainer, taking the tensors), and in the loop data
    collation, garbage collection and whatever is wrapped in `timed`.
    """

    def __init__(self, steps: int, title: str):
        self.started = time.perf_counter()
        self.logs: dict[str, list[float]] = {}
        self.steps = 0
        self._loop = Cost()
        self._open = ExitStack()
        self._other_seconds = 0.0
        self._running = False
        self._collecting = 0.0
        self._counting = True
        # A bar within the bar over people; in a log file it would only be noise.
        self._bar = tqdm(total=steps, desc=title, unit="step", leave=False, file=sys.stderr, disable=None)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """The loop over steps begins."""
        self._loop = self._open.enter_context(measure())
        self._running = True

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """A step is done."""
        self.steps += 1
        self._bar.update()

    def on_log(self, *_: Any, logs: Mapping[str, Any] | None = None, **__: Any) -> None:
        """Keep the numbers that the trainer logs."""
        for name, value in (logs or {}).items():
            if isinstance(value, (int, float)):
                self.logs.setdefault(name, []).append(float(value))

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """The loop is over."""
        self._open.close()
        self._running = False

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its seconds counted as not the model's."""

        def wrapper(*arguments: Any, **options: Any) -> Any:
            begun = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self._other_seconds += time.perf_counter() - begun

        return wrapper

    def watch_garbage(self, phase: str, info: dict[str, int]) -> None:
        """For `gc.callbacks`."""
        if phase == "start":
            self._collecting = time.perf_counter()
        elif self._running:
            self._other_seconds += time.perf_counter() - self._collecting

    @contextmanager
    def counting_positions(self, model: PreTrainedModel) -> Iterator[None]:
        """Charge what the model's embedding is asked for: positions of forward passes, pads included."""

        def count(_: Any, inputs: tuple[Any, ...]) -> None:
            if self._counting:
                charge(training_tokens=inputs[0].numel())

        handle = model.get_input_embeddings().register_forward_pre_hook(count)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """The block's positions are no part of the training."""
        self._counting = False
        try:
            yield
        finally:
            self._counting = True

    def close(self) -> None:
        self._open.close()  # after an exception
        self._bar.close()

    def summary(self) -> dict[str, float]:
        """The share of the whole time that is not the model's, and the seconds outside the loop."""
        total = time.perf_counter() - self.started
        model = self._loop.seconds - self._other_seconds
        return {"not_model_share": 1 - model / total, "fixed_seconds": total - self._loop.seconds}

    def share(self, people: int) -> dict[str, float]:
        """`summary` for each of several people who were trained in one pass."""
        whole = self.summary()
        return whole | {"fixed_seconds": whole["fixed_seconds"] / people}

    def charge_steps(self, optimizer_steps: int) -> None:
        """Charge the steps of everyone who was trained, and what one step in the loop took."""
        loop, steps = self._loop, max(self.steps, 1)
        charge(
            optimizer_steps=optimizer_steps,
            seconds_per_step=loop.seconds / steps,
            tokens_per_step=loop.amounts.get("training_tokens", 0) / steps,
        )
        if loop.joules is not None:
            charge(joules_per_step=loop.joules / steps)


@contextmanager
def training_session(
    model: PreTrainedModel, steps: int, title: str, dropout_off: bool = False
) -> Iterator[tuple[TrainingClock, Path]]:
    """A clock and a scratch folder for one training; quiet, and without a trace on the model, in memory or on disk.

    ``dropout_off``: the model's own dropout is off within the block.

    TRL's PPO collects garbage twice a step: with the heap as it is now frozen that costs next to nothing, and the
    collection at the end finds exactly what this training left.
    """
    clock = TrainingClock(steps, title)
    gc.freeze()
    gc.callbacks.append(clock.watch_garbage)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="palign-training-") as folder,
            _silence(),
            leaving_no_trace(model),
            plain_attention(model),
            clock.counting_positions(model),
        ):
            if dropout_off:
                turn_dropout_off(model)
            yield clock, Path(folder)
    finally:
        gc.callbacks.remove(clock.watch_garbage)
        clock.close()
        gc.collect()
        gc.unfreeze()


@contextmanager
def _silence() -> Iterator[None]:
    """No warnings, and nothing on stdout: TRL's PPO prints there."""
    with quiet(*_NOISY), contextlib.redirect_stdout(io.StringIO()):
        yield


def curves(values: Mapping[str, list[float]]) -> dict[str, Any]:
    """First and last of the values by name, and a thinned curve. Raises FloatingPointError when one is not finite."""
    found: dict[str, Any] = {}
    for name, each in values.items():
        if not all(map(math.isfinite, each)):
            raise FloatingPointError(f"training diverged: {name} is not finite; lower method.learning_rate")
        found |= {f"first_{name}": each[0], f"last_{name}": each[-1], f"{name}_curve": _thinned(each)}
    return found


def _thinned(values: list[float]) -> list[list[float]]:
    """A curve as at most `MOST_POINTS` pairs (step from 1, value), first and last always among them."""
    last = len(values) - 1
    points = min(len(values), MOST_POINTS)
    kept = sorted({round(i * last / max(points - 1, 1)) for i in range(points)})
    return [[i + 1, values[i]] for i in kept]
