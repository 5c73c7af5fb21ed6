"""`make bench`: how fast answering and PAS are, as ratios measured in one run on one machine.

Answering is compared with plain batched `model.generate` on full prompts (same model, dtype and prompts); PAS's probes
with scikit-learn in a loop over heads. Plain generation is timed on a part of the items and scaled, since its cost is
the same for each item; the table says on how many.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from palign_bench.alignment import Alignment, Case
from palign_bench.backbone.answering import FullPromptEngine
from palign_bench.backbone.loading import load
from palign_bench.backbone.local import LocalBackbone
from palign_bench.backbone.steering import head_shape
from palign_bench.backbone.tokenizing import encode, render
from palign_bench.configuration import model_title, read_option, resolve_model
from palign_bench.inventory import Inventory, Item, Respondent, ipip_neo_300
from palign_bench.ledger import write_atomically
from palign_bench.pas.aligner import PersonalityActivationSearch
from palign_bench.pas.benchmark import time_probes
from palign_bench.pas.probes import collect_activations, label_samples
from palign_bench.protocol import AsReleased, Corrected
from palign_bench.provenance import processor
from palign_bench.respondents import load_respondents

RELEASED_BATCH = (
    10  # rows per `generate` call in the timing of plain generation; larger ones were no faster on two cores
)


@dataclass(frozen=True)
class Measurement:
    """One line of the benchmark; ``ratio_to_ours`` is None where there is nothing to compare."""

    name: str
    seconds: float
    ratio_to_ours: float | None
    note: str = ""


def seconds_of(work: Callable[[], Any], repeats: int) -> float:
    """Median wall-clock seconds of ``work`` over ``repeats`` runs, CUDA synchronised."""
    times = []
    for _ in range(repeats):
        _synchronize()
        started = time.perf_counter()
        work()
        _synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def matrix_rate(dtype: torch.dtype, device: torch.device, size: int = 2048) -> float:
    """The machine's measured matrix-multiplication rate: floating-point operations per second."""
    size = size * (4 if device.type == "cuda" else 1)
    first, second = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    for _ in range(3):
        first @ second
    return 2 * size**3 / seconds_of(lambda: first @ second, repeats=7)


def answering_operations(backbone: LocalBackbone, prefix: int, suffixes: Sequence[int]) -> float:
    """Floating-point operations of one answer sheet: matrix products of the layers, and attention's own."""
    embedding = backbone.model.get_input_embeddings().weight.numel()
    head = backbone.model.get_output_embeddings().weight
    tied = head.data_ptr() == backbone.model.get_input_embeddings().weight.data_ptr()
    weights = sum(p.numel() for p in backbone.model.parameters()) - embedding - (0 if tied else head.numel())
    layers, heads, width = head_shape(backbone.model)
    own = sum(length * (prefix + length / 2) for length in suffixes) + prefix * prefix / 2
    return 2 * weights * (prefix + sum(suffixes)) + 4 * layers * heads * width * own


def bench_answering(
    backbone: LocalBackbone, alignment: Alignment, items: Sequence[Item], plain_items: int, repeats: int
) -> list[Measurement]:
    """Few-Shot's 180 answers with our engine, and with plain generation."""
    backbone.answer(alignment, items[:8])  # warm-up
    ours = seconds_of(lambda: backbone.answer(alignment, items), repeats)
    rows = [Measurement("few_shot_answers_ours", ours, None, f"{len(items)} items, one person, log-probabilities")]
    released = LocalBackbone(backbone.loaded, AsReleased(), backbone.engine)
    greedy = seconds_of(lambda: released.answer(alignment, items), repeats)
    note = "greedy until the parse is decided"
    rows.append(Measurement("few_shot_answers_ours_generating", greedy, greedy / ours, note))
    part = items[:plain_items]
    plain = seconds_of(lambda: plain_generation(backbone, alignment, part), 1) * len(items) / len(part)
    note = f"plain generate on full prompts, 15 new tokens; {len(part)} of {len(items)} items timed, scaled"
    rows.append(Measurement("few_shot_answers_plain_generate", plain, plain / ours, note))
    lengths = [len(encode(backbone.tokenizer, t)) for t in _texts(backbone, alignment, items)]
    shared = len(encode(backbone.tokenizer, render(backbone.tokenizer, (backbone.system_prompt(alignment), "", ""))))
    operations = answering_operations(backbone, shared, [length - shared for length in lengths])
    rate = matrix_rate(backbone.model.dtype, backbone.model.device)
    ideal = operations / rate
    note = f"ours reaches {operations / ours / 1e9:.0f} of {rate / 1e9:.0f} GFLOP/s: {ideal / ours:.0%}"
    rows.append(Measurement("few_shot_answers_at_the_measured_matrix_rate", ideal, ideal / ours, note))
    return rows


def plain_generation(backbone: LocalBackbone, alignment: Alignment, items: Sequence[Item]) -> None:
    """What a script without an engine does: whole prompts, left-padded, `generate` with 15 new tokens."""
    rows = [encode(backbone.tokenizer, text) for text in _texts(backbone, alignment, items)]
    engine = FullPromptEngine(backbone.model, backbone.tokenizer)
    for start in range(0, len(rows), RELEASED_BATCH):
        inputs = engine.inputs(rows[start : start + RELEASED_BATCH], None)
        with torch.no_grad():
            backbone.model.generate(**inputs, max_new_tokens=15, do_sample=False, pad_token_id=0)


def bench_pas(backbone: LocalBackbone, inventory: Inventory, person: Respondent, few_shot: float) -> list[Measurement]:
    """PAS with prompt under `corrected`: preparation, one person's alignment, and its probes apart."""
    protocol = Corrected()
    aligner = PersonalityActivationSearch()
    prepare = seconds_of(lambda: aligner.prepare(backbone, inventory), 1)
    case = Case(
        respondent_id=person.id,
        known=protocol.known(inventory, person),
        selection=protocol.selection(inventory, person, seed=0),
        seed=0,
    )
    align = seconds_of(lambda: aligner.align(case), 1)
    activations = collect_activations(backbone, inventory, aligner.probe_prompt)
    samples = label_samples(activations.numbers, case.known, seed=0, by_item=True)
    training = samples.rows[samples.training]
    probes = time_probes(activations.features[:, training], samples.labels[samples.training])
    return [
        Measurement("pas_prepare", prepare, None, "shared by all people: 240 dialogues, every head"),
        Measurement(
            "pas_align", align, None, f"one person, grid of 6 alphas; {align / few_shot:.1f} × one answer sheet"
        ),
        Measurement("pas_probes_ours", probes.batched_seconds, None, f"{probes.heads} heads, {probes.samples} samples"),
        Measurement("pas_probes_scikit_learn", probes.scikit_learn_seconds, probes.ratio, "a loop over the heads"),
    ]


def main() -> None:
    """Run the benchmark, print it and write ``runs/bench/bench.csv``."""
    parser = argparse.ArgumentParser("python -m palign_bench.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2_135m", help="an option of conf/model")
    parser.add_argument("--dtype", default="auto", help="auto, bfloat16, float32 or float16")
    parser.add_argument(
        "--plain-items", type=int, default=10, help="items that plain generation is timed on (180: all)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="repetitions of our own timings (median)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the ledger's folder")
    chosen = parser.parse_args()
    inventory = ipip_neo_300()
    settings = resolve_model(read_option("model", chosen.model)) | {"dtype": chosen.dtype}
    backbone = LocalBackbone(load(settings), Corrected())
    source = load_respondents(read_option("respondents", "auto"))
    person = source.people[0]
    prompt = Corrected().few_shot_prompt(inventory, Corrected().known(inventory, person))
    print(f"{model_title(settings)}, {backbone.model.dtype}, {processor()}, {torch.get_num_threads()} threads")
    print(f"load average {os.getloadavg()[0]:.1f} at the start; one person of: {source.description}\n", flush=True)
    items = inventory.select(inventory.held_out)
    rows = bench_answering(backbone, Alignment(system_prompt=prompt), items, chosen.plain_items, chosen.repeats)
    rows += bench_pas(backbone, inventory, person, few_shot=rows[0].seconds)
    table = pd.DataFrame([row.__dict__ for row in rows])
    print(table.to_string(index=False, float_format=lambda v: f"{v:.3g}", na_rep="", justify="left"))
    write_atomically(chosen.runs / "bench" / "bench.csv", table.to_csv(index=False))
    print(f"\nWritten to {chosen.runs / 'bench' / 'bench.csv'}")


def _texts(backbone: LocalBackbone, alignment: Alignment, items: Sequence[Item]) -> list[str]:
    return [render(backbone.tokenizer, backbone.dialogue(alignment, item, "Option")) for item in items]


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
