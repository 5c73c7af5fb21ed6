"""`make bench`: how fast answering, PAS and training are, as ratios measured in one run on one machine.

Answering is compared with plain batched `model.generate` on full prompts and, with ``--lm-eval``, with
lm-evaluation-harness (same model, dtype, prompts and items); PAS's probes with scikit-learn in a loop over heads; with
``--cohort N``, the training of N people at once with TRL one by one. What others take is timed on a part of the items
and scaled, since their cost is the same for each item; the table says on how many.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from baselines.pas.aligner import PersonalityActivationSearch
from baselines.pas.probes import collect_activations, label_samples
from bench.growth import PEOPLE, draw_growth, measure_growth
from bench.lm_eval import require_lm_eval
from bench.probes import time_probes
from bench.profile import profiled
from palign_bench.aligner import Case
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.loading.settings import model_title, resolve_model
from palign_bench.backbone.loading.weights import load
from palign_bench.backbone.local import LocalBackbone
from palign_bench.backbone.tokenizing import encode
from palign_bench.costs.machine import processor
from palign_bench.files import write_atomically
from palign_bench.questionnaire.inventory import Inventory, Item, Respondent, ipip_neo_300
from palign_bench.questionnaire.protocol import AsReleased, Corrected, parse_released
from palign_bench.report.document import Document, Table, markdown, terminal
from palign_bench.respondents import load_respondents
from palign_bench.run.assembly import resolve_budget
from palign_bench.settings import UserError, read_option

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
    anatomy, layers = backbone.anatomy, len(backbone.anatomy.layers)
    own = sum(length * (prefix + length / 2) for length in suffixes) + prefix * prefix / 2
    return 2 * weights * (prefix + sum(suffixes)) + 4 * layers * anatomy.heads * anatomy.head_width * own


def bench_answering(
    backbone: LocalBackbone, alignment: Alignment, items: Sequence[Item], plain_items: int, repeats: int
) -> list[Measurement]:
    """Few-Shot's 180 answers with our engine, and with plain generation."""
    backbone.answer(alignment, items[:8])  # warm-up
    ours = seconds_of(lambda: backbone.answer(alignment, items), repeats)
    rows = [Measurement("few_shot_answers_ours", ours, None, f"{len(items)} items, one person, log-probabilities")]
    released = LocalBackbone(backbone.loaded, AsReleased(backbone.protocol.inventory), backbone.engine)
    greedy = seconds_of(lambda: released.answer(alignment, items), repeats)
    note = "greedy until the parse is decided"
    rows.append(Measurement("few_shot_answers_ours_generating", greedy, greedy / ours, note))
    part = items[:plain_items]
    texts: list[str] = []
    plain = seconds_of(lambda: texts.extend(plain_generation(backbone, alignment, part)), 1) * len(items) / len(part)
    theirs = [parse_released(text) for text in texts]
    own = backbone.answer(alignment, part[:1], audit=part).audit or {}
    same = sum(parse_released(own[item.number]) == option for item, option in zip(part, theirs, strict=True)) / len(
        part
    )
    note = f"plain generate on full prompts, 15 new tokens; {len(part)} of {len(items)} items timed, scaled; "
    note += f"{same:.0%} equal answers to ours generating"
    rows.append(Measurement("few_shot_answers_plain_generate", plain, plain / ours, note))
    lengths = [len(encode(backbone.tokenizer, t)) for t in _texts(backbone, alignment, items)]
    shared = len(encode(backbone.tokenizer, backbone.chat.render((backbone.system_prompt(alignment), "", ""))))
    operations = answering_operations(backbone, shared, [length - shared for length in lengths])
    rate = matrix_rate(backbone.model.dtype, backbone.model.device)
    ideal = operations / rate
    note = f"ours reaches {operations / ours / 1e9:.0f} of {rate / 1e9:.0f} GFLOP/s: {ideal / ours:.0%}"
    rows.append(Measurement("few_shot_answers_at_the_measured_matrix_rate", ideal, ideal / ours, note))
    return rows


def bench_lm_eval(
    backbone: LocalBackbone, alignment: Alignment, items: Sequence[Item], part_items: int, ours: float
) -> Measurement:
    """The same five-way choices through lm-evaluation-harness."""
    from bench.lm_eval import lm_eval_log_probs

    part = items[:part_items]
    texts = [backbone.chat.render(backbone.dialogue(alignment, item, "Option (")) for item in part]
    found: list[torch.Tensor] = []
    seconds = seconds_of(lambda: found.append(lm_eval_log_probs(backbone, texts)), 1) * len(items) / len(part)
    own = backbone.answer(alignment, part).log_probs or {}
    rows = torch.tensor([list(own[item.number]) for item in part])
    same = (found[0].argmax(-1) == rows.argmax(-1)).float().mean()
    note = f"lm-eval {version('lm-eval')}, HF backend; {len(part)} of {len(items)} items timed, scaled; "
    note += f"{same:.0%} equal answers, log-probabilities differ by at most {(found[0] - rows).abs().max():.2g}"
    return Measurement("few_shot_answers_lm_eval", seconds, seconds / ours, note)


def plain_generation(backbone: LocalBackbone, alignment: Alignment, items: Sequence[Item]) -> list[str]:
    """What a script without an engine does: whole prompts, left-padded, `generate` with 15 new tokens."""
    rows = [encode(backbone.tokenizer, text) for text in _texts(backbone, alignment, items)]
    texts: list[str] = []
    for start in range(0, len(rows), RELEASED_BATCH):
        batch = rows[start : start + RELEASED_BATCH]
        longest = max(map(len, batch))
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in batch])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in batch])
        inputs = {"input_ids": ids.to(backbone.model.device), "attention_mask": mask.to(backbone.model.device)}
        with torch.no_grad():
            tokens = backbone.model.generate(**inputs, max_new_tokens=15, do_sample=False, pad_token_id=0)
        texts += backbone.tokenizer.batch_decode(tokens[:, longest:], clean_up_tokenization_spaces=False)
    return texts


def bench_pas(backbone: LocalBackbone, inventory: Inventory, person: Respondent, few_shot: float) -> list[Measurement]:
    """PAS with prompt under `corrected`: preparation, one person's alignment, and its probes apart."""
    protocol = Corrected(inventory)
    aligner = PersonalityActivationSearch()
    prepare = seconds_of(lambda: aligner.prepare(backbone, protocol), 1)
    case = Case(
        respondent_id=person.id,
        known=protocol.known(person),
        selection=protocol.selection(person, seed=0),
        seed=0,
    )
    made: list[Alignment] = []
    align = seconds_of(lambda: made.append(aligner.align(case)), 1)
    items = inventory.select(inventory.held_out)
    # Alpha 0 is Few-Shot, whose answers are taken over; a shift needs answers of its own.
    answers = seconds_of(lambda: backbone.answer(made[0], items), 1) if made[0].head_shifts is not None else few_shot
    activations = collect_activations(backbone, inventory, aligner.probe_prompt)
    samples = label_samples(activations.numbers, case.known, seed=0, by_item=True)
    training = samples.rows[samples.training]
    probes = time_probes(activations.features[:, training], samples.labels[samples.training])
    return [
        Measurement("pas_prepare", prepare, None, "shared by all people: 240 dialogues, every head"),
        Measurement(
            "pas_align", align, None, f"one person, grid of 6 alphas; {align / few_shot:.1f} × one answer sheet"
        ),
        Measurement(
            "pas_align_and_answers",
            align + answers,
            None,
            f"end to end without prepare, alpha {made[0].summary['alpha']:g}; "
            f"{(align + answers) / few_shot:.1f} × one answer sheet of Few-Shot (aim: under 3)",
        ),
        Measurement("pas_probes_ours", probes.batched_seconds, None, f"{probes.heads} heads, {probes.samples} samples"),
        Measurement("pas_probes_scikit_learn", probes.scikit_learn_seconds, probes.ratio, "a loop over the heads"),
    ]


def profile_text(backbone: LocalBackbone, inventory: Inventory, person: Respondent, items: int) -> str:
    """Operators of Few-Shot answers and of PAS: preparation and one person's probes (its search is answers again)."""
    protocol, aligner = Corrected(inventory), PersonalityActivationSearch()
    known = protocol.known(person)
    alignment = Alignment(system_prompt=protocol.few_shot_prompt(known))
    part = inventory.select(inventory.held_out[:items])
    backbone.answer(alignment, part[:2])  # warm-up
    texts = [
        profiled(f"Few-Shot, {len(part)} answers", lambda: backbone.answer(alignment, part)),
        profiled("PAS, prepare", lambda: aligner.prepare(backbone, protocol)),
        profiled("PAS, probes of one person", lambda: aligner.fit([known], [0])),
    ]
    return "\n".join(texts)


def bench_cohort(
    backbone: LocalBackbone, inventory: Inventory, people: Sequence[Respondent], steps: int
) -> list[Measurement]:
    """Supervised LoRA of several people, in one pass and with TRL one by one; seconds per person."""
    from palign_bench.run.assembly import make_aligners

    protocol = Corrected(inventory)
    cases = [Case(p.id, protocol.known(p), {}, seed=number) for number, p in enumerate(people)]
    seconds = []
    for cohort in (len(people), 1):
        method = resolve_budget(read_option("method", "lora") | {"steps": steps}, {"name": "quick", "cohort": cohort})
        aligner = make_aligners(method)["lora"]
        aligner.prepare(backbone, protocol)
        aligner.warm_up(cases[0])
        seconds.append(seconds_of(lambda aligner=aligner: aligner.align_many(cases), 1) / len(people))  # type: ignore[misc]
    ours, alone = seconds
    note = f"LoRA, {len(people)} people, {steps} steps of 8, seconds per person"
    return [
        Measurement("lora_cohort", ours, None, f"{note}; one pass"),
        Measurement("lora_one_by_one", alone, alone / ours, f"{note}; TRL"),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark, print it and write ``bench.csv`` and ``bench.md`` into ``runs/bench/``."""
    chosen = _parse(arguments)
    if chosen.lm_eval:
        require_lm_eval()
    inventory = ipip_neo_300()
    protocol = Corrected(inventory)
    settings = read_option("model", chosen.model) | {"dtype": chosen.dtype}
    settings = resolve_model(settings | ({"name_or_path": chosen.path} if chosen.path else {}))
    backbone = LocalBackbone(load(settings), protocol)
    source = load_respondents(read_option("respondents", chosen.respondents), inventory)
    known = [protocol.known(person) for person in source.people[: max(PEOPLE)]]
    machine = (
        f"{model_title(settings)}, {backbone.model.dtype}, {processor()}, {torch.get_num_threads()} threads; load "
        f"average {os.getloadavg()[0]:.1f} at the start; people: {source.description}"
    )
    print(machine, flush=True)
    if chosen.profile:
        text = f"{machine}\n\n{profile_text(backbone, inventory, source.people[0], chosen.profile)}"
        write_atomically(chosen.runs / "bench" / "profile.txt", text)
        print(text)
        return
    alignment, items = Alignment(system_prompt=protocol.few_shot_prompt(known[0])), inventory.select(inventory.held_out)
    rows = bench_answering(backbone, alignment, items, chosen.plain_items, chosen.repeats)
    if chosen.lm_eval:
        rows.append(bench_lm_eval(backbone, alignment, items, chosen.plain_items, ours=rows[0].seconds))
    rows += bench_pas(backbone, inventory, source.people[0], few_shot=rows[0].seconds)
    if chosen.cohort > 1:
        rows += bench_cohort(backbone, inventory, source.people[: chosen.cohort], chosen.steps)
    folder = chosen.runs / "bench"
    if chosen.growth:
        found = measure_growth(backbone, inventory, known, lambda work: seconds_of(work, chosen.repeats))
        draw_growth(found, machine.split(";")[0], folder / "growth")
        for growth in found:
            note = f"{growth.seconds[0]:.3g} s at {growth.amounts[0]:g}; exponent {growth.exponent:.2f} (1: linear)"
            name = f"few_shot_answers_{growth.amounts[-1]:g}_{growth.what}"
            rows.append(Measurement(name, growth.seconds[-1], None, note))
    frame = pd.DataFrame([row.__dict__ for row in rows])
    write_atomically(folder / "bench.csv", frame.to_csv(index=False))
    cells = [[f"{v:.3g}" if isinstance(v, float) else str(v or "") for v in row.__dict__.values()] for row in rows]
    title = f"bench: {machine}; {os.getloadavg()[0]:.1f} at the end"
    document = Document(title, [Table(list(frame.columns), cells)])
    write_atomically(folder / "bench.md", markdown(document))
    print(terminal(document, wide=True))
    print(f"Written to {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="smollm2_135m", help="an option of conf/model")
    parser.add_argument("--path", help="with --model local: a folder or hub name")
    parser.add_argument("--respondents", default="auto", help="an option of conf/respondents")
    parser.add_argument("--dtype", default="auto", help="auto, bfloat16, float32 or float16")
    parser.add_argument("--plain-items", type=int, default=10, help="items that others are timed on (180: all)")
    parser.add_argument(
        "--lm-eval", action="store_true", help="compare with lm-evaluation-harness (pip install lm-eval)"
    )
    parser.add_argument("--growth", action="store_true", help="also people × items × known answers × model size, drawn")
    parser.add_argument(
        "--profile", type=int, metavar="ITEMS", help="only profile so many answers and PAS; write profile.txt"
    )
    parser.add_argument("--cohort", type=int, default=1, help="N: also train N people at once, and with TRL one by one")
    parser.add_argument("--steps", type=int, default=2, help="optimizer steps of that training")
    parser.add_argument("--repeats", type=int, default=3, help="repetitions of our own timings (median)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the ledger's folder")
    return parser.parse_args(arguments)


def _texts(backbone: LocalBackbone, alignment: Alignment, items: Sequence[Item]) -> list[str]:
    return [backbone.chat.render(backbone.dialogue(alignment, item, "Option")) for item in items]


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"palign-bench: {error}")
