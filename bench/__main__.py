"""`make bench`: how fast answering, PAS and training are, as ratios measured in one run on one machine.

Answering is compared with plain batched `model.generate` on full prompts and, with ``--peers``, with
lm-evaluation-harness, llama.cpp, OpenVINO GenAI, vLLM and SGLang (`bench.peers`: same model, prompts and items); PAS's
probes with scikit-learn in a loop over heads; with ``--cohort N``, training N people at once with TRL one by one. What
others take is timed on a part of the items and scaled, since their cost is the same for each item; the table says on
how many.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from baselines.pas.aligner import PersonalityActivationSearch
from baselines.pas.probes import collect_activations, label_samples
from bench.growth import PEOPLE, draw_growth, measure_growth
from bench.peers import PEERS, Answered, Clock, Questions, ask, compared, questions, why_not_asked
from bench.probes import time_probes
from bench.profile import profiled
from palign_bench.aligner import Case
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.engines.out_of_memory import free_memory
from palign_bench.backbone.engines.products import product_dtype
from palign_bench.backbone.loading.settings import model_title, package_path, resolve_model
from palign_bench.backbone.loading.weights import load
from palign_bench.backbone.local import LocalBackbone
from palign_bench.costs.machine import gpus, hardware, processor
from palign_bench.files import write_atomically
from palign_bench.questionnaire.inventory import Inventory, Item, Respondent, ipip_neo_300
from palign_bench.questionnaire.protocol import AsReleased, Corrected, audit_items
from palign_bench.report.document import Document, Table, render, terminal
from palign_bench.respondents import load_respondents
from palign_bench.run.assembly import resolve_budget
from palign_bench.run.methods import make_aligners
from palign_bench.settings import UserError, options, read_option

ONE_BY_ONE = 2  # people trained so: what one takes is the same for everyone


@dataclass(frozen=True)
class Measurement:
    """One line of the benchmark; ``seconds`` is None for what cannot run, ``ratio_to_ours`` where none is compared."""

    name: str
    seconds: float | None
    ratio_to_ours: float | None
    note: str = ""


def seconds_of(work: Callable[[], Any], repeats: int = 1, processor_time: bool = False) -> float:
    """Median seconds of ``work`` over ``repeats`` runs, CUDA synchronised: by the wall clock, or of the processor."""
    clock = time.process_time if processor_time else time.perf_counter
    times = []
    for _ in range(repeats):
        _synchronize()
        started = clock()
        work()
        _synchronize()
        times.append(clock() - started)
    return statistics.median(times)


def matrix_rate(dtype: torch.dtype, device: torch.device, clock: Clock = seconds_of, size: int = 2048) -> float:
    """The machine's measured matrix-multiplication rate in this dtype: floating-point operations per second."""
    size = size * (4 if device.type == "cuda" else 1)
    first, second = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    for _ in range(3):
        first @ second
    return 2 * size**3 / statistics.median(clock(lambda: first @ second) for _ in range(7))


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
    backbone: LocalBackbone,
    alignment: Alignment,
    items: Sequence[Item],
    repeats: int,
    asked: Questions,
    peers: Sequence[str],
) -> list[Measurement]:
    """Few-Shot's answers with our engine, and with its peers: ours between theirs, at least ``repeats`` times."""
    backbone.answer(alignment, items[:8])  # warm-up
    part = items[: len(asked.texts)]
    sheet = backbone.answer(alignment, part, audit=part)
    rows, texts = torch.tensor(list((sheet.log_probs or {}).values())), list((sheet.audit or {}).values())
    times: list[float] = []
    theirs: dict[str, tuple[str, Answered]] = {}
    lines = []
    for name in peers:
        reason = why_not_asked(name, asked)
        if reason is not None:
            lines.append(Measurement(f"few_shot_answers_{name}", None, None, reason))
            continue
        times.append(asked.clock(lambda: backbone.answer(alignment, items)))
        theirs |= {way: (name, answered) for way, answered in ask(name, asked).items()}
    while len(times) < repeats:
        times.append(asked.clock(lambda: backbone.answer(alignment, items)))
    ours = statistics.median(times)
    note = (
        f"{len(items)} items, one person, log-probabilities; {len(times)} runs, {min(times):.3g} to {max(times):.3g} s"
    )
    found = [Measurement("few_shot_answers_ours", ours, None, note)]
    released = LocalBackbone(backbone.loaded, AsReleased(backbone.protocol.inventory), backbone.engine)
    greedy = asked.clock(lambda: released.answer(alignment, items))
    note = "greedy until the parse is decided"
    found.append(Measurement("few_shot_answers_ours_generating", greedy, greedy / ours, note))
    for way, (name, answered) in theirs.items():
        note = compared(name, answered, texts, rows)
        found.append(Measurement(f"few_shot_answers_{way}", answered.seconds, answered.seconds / ours, note))
    whole = questions(backbone, alignment, items, len(items), asked.clock)
    return [*found, *lines, _share_of_matrix_rate(whole, ours)]


def bench_together(
    backbone: LocalBackbone, alignments: Sequence[Alignment], inventory: Inventory, repeats: int, clock: Clock
) -> list[Measurement]:
    """Few-Shot's answers of several people in one pass and one by one, with and without the audit; seconds a person."""
    items, people = inventory.select(inventory.held_out), len(alignments)
    together = LocalBackbone(backbone.loaded, backbone.protocol, backbone.engine, cohort=people)
    found = []
    for name, audit in (("answers", []), ("answers_and_audit", audit_items(inventory))):
        seconds = []
        for way in (together, backbone):
            way.answer_many(alignments[:2], items[:8], audit[:2])  # warm-up
            times = [clock(partial(way.answer_many, alignments, items, audit)) for _ in range(repeats)]
            seconds.append(statistics.median(times) / people)
        ours, alone = seconds
        note = f"{people} people, {len(items)} items, {len(audit)} free texts; {together.cohort} in a pass"
        found.append(Measurement(f"few_shot_{name}_together", ours, None, note))
        found.append(Measurement(f"few_shot_{name}_one_by_one", alone, alone / ours, "seconds a person"))
    return found


def _share_of_matrix_rate(asked: Questions, ours: float) -> Measurement:
    """What the same operations would take at the rate of one large product, in the faster arithmetic."""
    model, prompts = asked.backbone.model, asked.prompts
    operations = answering_operations(asked.backbone, len(prompts.prefix), [len(each) for each in prompts.suffixes])
    dtype = product_dtype(model.dtype, model.device)
    rate = matrix_rate(dtype, model.device, asked.clock)
    ideal = operations / rate
    note = f"ours reaches {operations / ours / 1e9:.0f} of {rate / 1e9:.0f} GFLOP/s ({dtype}): {ideal / ours:.0%}"
    return Measurement("few_shot_answers_at_the_measured_matrix_rate", ideal, ideal / ours, note)


def bench_pas(
    backbone: LocalBackbone, inventory: Inventory, person: Respondent, few_shot: float, clock: Clock
) -> list[Measurement]:
    """PAS with prompt under `corrected`: preparation, one person's alignment, and its probes apart."""
    protocol = Corrected(inventory)
    aligner = PersonalityActivationSearch()
    prepare = clock(lambda: aligner.prepare(backbone, protocol))
    case = Case(
        respondent_id=person.id,
        known=protocol.known(person),
        selection=protocol.selection(person, seed=0),
        seed=0,
    )
    made: list[Alignment] = []
    align = clock(lambda: made.append(aligner.align(case)))
    items = inventory.select(inventory.held_out)
    # Alpha 0 is Few-Shot, whose answers are taken over; a shift needs answers of its own.
    answers = clock(lambda: backbone.answer(made[0], items)) if made[0].head_shifts is not None else few_shot
    activations = collect_activations(backbone, inventory, aligner.probe_prompt)
    samples = label_samples(activations.numbers, case.known, seed=0, by_item=True)
    training = samples.rows[samples.training]
    probes = time_probes(activations.features[:, training], samples.labels[samples.training], clock)
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
        Measurement(
            "pas_probes_scikit_learn",
            probes.scikit_learn_seconds,
            probes.ratio,
            f"a loop over the heads; its weights differ from ours by at most {probes.largest_weight_difference:.2g}",
        ),
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
        profiled("PAS, probes of one person", lambda: aligner.fit(known, 0)),
    ]
    return "\n".join(texts)


def bench_cohort(
    backbone: LocalBackbone, inventory: Inventory, people: Sequence[Respondent], method: str, steps: int, clock: Clock
) -> list[Measurement]:
    """Training of several people in one pass, and with TRL one by one (two of them); seconds per person."""
    protocol = Corrected(inventory)
    cases = [Case(p.id, protocol.known(p), {}, seed=number) for number, p in enumerate(people)]
    told = []
    for cohort, trained in ((len(cases), cases), (1, cases[:ONE_BY_ONE])):
        settings = resolve_budget(read_option("method", method) | {"steps": steps}, {"name": "paper", "cohort": cohort})
        (aligner,) = make_aligners(settings).values()
        aligner.prepare(backbone, protocol)
        aligner.warm_up(cases[0])
        free_memory()
        _peak_memory()
        seconds = clock(partial(aligner.align_many, trained)) / len(trained)
        told.append((seconds, f"{aligner.cohort} in a pass{_peak_memory()}"))
    (ours, how), (alone, how_alone) = told
    return [
        Measurement(f"{method}_cohort", ours, None, f"{len(cases)} people, {steps} steps, seconds per person; {how}"),
        Measurement(f"{method}_one_by_one", alone, alone / ours, f"TRL, the first {len(trained)}; {how_alone}"),
    ]


def _peak_memory() -> str:
    """What a GPU gave at most since this was last called; nothing without one."""
    if not torch.cuda.is_available():
        return ""
    peak = torch.cuda.max_memory_allocated() / 2**20
    torch.cuda.reset_peak_memory_stats()
    return f", {peak:,.0f} MiB at most"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark, print it and write ``bench.csv`` and ``bench.md`` into ``runs/bench/``."""
    chosen = _parse(arguments)
    # Before anything is loaded.
    peers = chosen.peers or ["generate"]
    _check_items(chosen.plain_items, peers)
    trained = _methods_in_cohorts(chosen.methods) if chosen.cohort > 1 else []
    inventory = ipip_neo_300()
    protocol = Corrected(inventory)
    settings = read_option("model", chosen.model) | {"dtype": chosen.dtype}
    settings |= {"weights": chosen.weights} if chosen.weights else {}
    settings = resolve_model(settings | ({"name_or_path": chosen.path} if chosen.path else {}))
    backbone = LocalBackbone(load(settings), protocol)
    source = load_respondents(read_option("respondents", chosen.respondents), inventory)
    known = [protocol.known(person) for person in source.people[: max(PEOPLE)]]
    this = {"processor": processor(), "gpus": gpus(), "cores": os.cpu_count()}
    machine = (
        f"{model_title(settings)}, {backbone.model.dtype}, {hardware(this)}, {torch.get_num_threads()} threads"
        f"{', seconds of processor time' if chosen.processor_time else ''}; load "
        f"average {os.getloadavg()[0]:.1f} at the start; people: {source.description}"
    )
    print(machine, flush=True)
    if chosen.profile:
        text = f"{machine}\n\n{profile_text(backbone, inventory, source.people[0], chosen.profile)}"
        write_atomically(chosen.runs / "bench" / "profile.txt", text)
        print(text)
        return
    alignment, items = Alignment(system_prompt=protocol.few_shot_prompt(known[0])), inventory.select(inventory.held_out)
    clock = partial(seconds_of, processor_time=chosen.processor_time)
    part, gguf = items[: chosen.plain_items], _gguf(settings)
    asked = questions(backbone, alignment, part, len(items), clock, gguf, chosen.processor_time)
    rows = bench_answering(backbone, alignment, items, chosen.repeats, asked, peers)
    folder = chosen.runs / "bench"
    _write(folder, machine, rows)  # what follows may be cut short
    if not chosen.answering:
        rows += bench_pas(backbone, inventory, source.people[0], rows[0].seconds or 0.0, clock)
    if chosen.together > 1:
        told = [protocol.known(person) for person in source.people[: chosen.together]]
        prompts = [Alignment(system_prompt=protocol.few_shot_prompt(each)) for each in told]
        rows += bench_together(backbone, prompts, inventory, chosen.repeats, clock)
    if chosen.cohort > 1:
        several = source.people[: chosen.cohort]
        for method in trained:
            rows += bench_cohort(backbone, inventory, several, method, chosen.steps, clock)
            _write(folder, machine, rows)
    if chosen.growth:
        found = measure_growth(backbone, inventory, known, partial(clock, repeats=chosen.repeats))
        draw_growth(found, machine.split(";")[0], folder / "growth")
        for growth in found:
            note = f"{growth.seconds[0]:.3g} s at {growth.amounts[0]:g}; exponent {growth.exponent:.2f} (1: linear)"
            name = f"few_shot_answers_{growth.amounts[-1]:g}_{growth.what}"
            rows.append(Measurement(name, growth.seconds[-1], None, note))
    print(terminal(_write(folder, machine, rows), wide=True))
    print(f"Written to {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")


def _write(folder: Path, machine: str, rows: Sequence[Measurement]) -> Document:
    """Write ``bench.csv`` and ``bench.md``. Returns the latter."""
    frame = pd.DataFrame([row.__dict__ for row in rows])
    write_atomically(folder / "bench.csv", frame.to_csv(index=False))
    cells = [[f"{v:.3g}" if isinstance(v, float) else str(v or "") for v in row.__dict__.values()] for row in rows]
    title = f"bench: {machine}; {os.getloadavg()[0]:.1f} at the end"
    document = Document(title, [Table(list(frame.columns), cells)])
    write_atomically(folder / "bench.md", render(document, "md"))
    return document


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="smollm2_135m", help="an option of conf/model")
    parser.add_argument("--weights", help="random: of the model's shape")
    parser.add_argument("--answering", action="store_true", help="without PAS")
    parser.add_argument("--path", help="with --model local: a folder or hub name")
    parser.add_argument("--respondents", default="auto", help="an option of conf/respondents")
    parser.add_argument("--dtype", default="auto", help="auto, bfloat16, float32 or float16")
    parser.add_argument("--plain-items", type=int, default=10, help="items that others are timed on (180: all)")
    parser.add_argument(
        "--peers", nargs="*", choices=PEERS, help="compare answering with all of these, or with those named"
    )
    parser.add_argument(
        "--processor-time", action="store_true", help="seconds of the processor, for one thread beside other work"
    )
    parser.add_argument("--growth", action="store_true", help="also people × items × known answers × model size, drawn")
    parser.add_argument(
        "--profile", type=int, metavar="ITEMS", help="only profile so many answers and PAS; write profile.txt"
    )
    parser.add_argument(
        "--together", type=int, default=1, help="N: also N people's answers in one pass, and one by one"
    )
    parser.add_argument("--cohort", type=int, default=1, help="N: also train N people at once, and with TRL one by one")
    parser.add_argument("--methods", default="lora", help="trained so, comma-separated: lora, qlora, dpo, ppo, rloo")
    parser.add_argument("--steps", type=int, default=2, help="optimizer steps of that training")
    parser.add_argument("--repeats", type=int, default=3, help="repetitions of our own timings (median)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the ledger's folder")
    chosen = parser.parse_args(arguments)
    chosen.peers = list(PEERS) if chosen.peers == [] else chosen.peers
    return chosen


def _check_items(items: int, peers: Sequence[str]) -> None:
    """Raise UserError for fewer items than tell what all of them take."""
    keeping = [name for name in peers if PEERS[name].keeps_beginning]
    if items < 1 or (items < 2 and keeping):
        reason = f": of {', '.join(keeping)} the first item's seconds are also the beginning's" if keeping else ""
        raise UserError(f"--plain-items {items}: give {2 if keeping else 1} or more{reason}.")


def _methods_in_cohorts(names: str) -> list[str]:
    """The methods of a comma-separated list. Raises UserError for one that does not train several people at once."""
    possible = [each for each in options("method") if read_option("method", each).get("cohort") == "auto"]
    chosen = names.split(",")
    if other := [name for name in chosen if name not in possible]:
        raise UserError(
            f"--methods {other[0]}: choose from those that train several people at once: {', '.join(possible)}."
        )
    return chosen


def _gguf(settings: Mapping[str, Any]) -> Path | None:
    """The model's GGUF file, where its weights come in one and no adapter changes them."""
    file = str(settings.get("package_file") or "")
    whole = settings["weights"] == "package" and not settings.get("package_adapter")
    return package_path(settings["package"], file) if whole and file.endswith(".gguf") else None


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"palign-bench: {error}")
