"""The stages of `make gpu-reference`: ordinary commands, each with a time of its own."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from palign_bench.respondents import load_papi
from palign_bench.respondents.source import RespondentsError
from palign_bench.settings import options

TAUGHT = "smollm2_135m_taught"
TRAINED = ("lora", "full_finetuning", "prompt_tuning", "qlora", "dpo", "rloo", "ppo")
UNTRAINED = ("floors", "vanilla", "few_shot", "personality_prompt_template", "readout", "pas")


@dataclass(frozen=True)
class Stage:
    """One command. ``seconds``: its time; ``gib``: GPU memory that it needs; ``bench``: `python -m bench`, no run."""

    name: str
    shows: str
    arguments: tuple[str, ...]
    seconds: float
    gib: float = 2.0
    bench: bool = False

    @property
    def command(self) -> list[str]:
        """What is run."""
        return [sys.executable, "-m", "bench" if self.bench else "palign_bench", *self.arguments]


@dataclass(frozen=True)
class Scale:
    """How much every stage does: on a GPU, or in a rehearsal."""

    small: str  # the small model
    taught: str | None  # the small model that was taught people; None where there is none
    shape: tuple[str, ...]  # what makes the large models' shapes tiny
    people: int
    people_alone: int  # of the stage that answers one by one
    people_trained: int
    cohort: int
    steps: int  # optimizer steps that are measured on the large shapes
    training: str
    plain_items: int  # that plain generation is timed on
    repeats: int
    relative: tuple[str, ...]  # methods of the large shape that are measured in processes of their own
    others: tuple[str, ...]
    quantized: tuple[str, ...]
    largest: tuple[str, ...]


ON_A_GPU = Scale(
    small="smollm2_135m",
    taught=TAUGHT if TAUGHT in options("model") else None,
    shape=(),
    people=300,
    people_alone=20,
    people_trained=300,
    cohort=16,
    steps=10,
    training="paper",
    plain_items=10,
    repeats=3,
    relative=("few_shot", "pas", "lora", "qlora", "dpo", "ppo"),
    others=("vanilla", "personality_prompt_template", "readout", "prompt_tuning", "full_finetuning", "rloo"),
    quantized=("few_shot", "pas"),
    largest=("few_shot", "pas"),
)
REHEARSAL = Scale(
    small="organism",
    taught=None,
    shape=tuple(
        f"model.shape.{each}"
        for each in (
            "hidden_size=64",
            "intermediate_size=128",
            "num_hidden_layers=3",
            "num_attention_heads=8",
            "num_key_value_heads=2",
        )
    ),
    people=2,
    people_alone=2,
    people_trained=1,
    cohort=2,
    steps=1,
    training="quick",
    plain_items=2,
    repeats=1,
    relative=("pas", "lora"),
    others=("vanilla", "readout", "full_finetuning"),
    quantized=("few_shot",),
    largest=("few_shot",),
)


def stages(ledger: Path, people: Sequence[str], scale: Scale) -> list[Stage]:
    """The stages in order, the most telling first. ``people``: the settings that name the respondents."""
    shared = (f"runs={ledger}", "tracking=none", *people)
    random = ("model.weights=random", *scale.shape)
    one = (*shared, "respondents.limit=1")
    many = (*shared, f"respondents.limit={scale.people}", f"model.cohort={scale.cohort}")
    measured = ("training=measured", f"training.steps={scale.steps}")

    def table(name: str, methods: Sequence[str], *settings: str) -> tuple[str, ...]:
        return ("experiment=table1", f"name={name}", f"method={','.join(methods)}", *settings)

    source = people[0].partition("=")[2]
    timing = ("--plain-items", str(scale.plain_items), "--repeats", str(scale.repeats))
    bench = ("--model", scale.small, "--respondents", source, "--runs", str(ledger), *timing)
    relative = ("efficiency", "--methods", ",".join(scale.relative), "--repeats", "1", "--steps", str(scale.steps))
    found = [
        Stage("bench", "share of the matrix rate, and plain generation", bench, 90, bench=True),
        Stage(
            "together",
            f"{scale.small}, {scale.people} people, {scale.cohort} in one pass",
            table("together", UNTRAINED, f"model={scale.small}", *many, "row_seconds=40"),
            170,
        ),
        Stage(
            "one_by_one",
            f"{scale.small}, {scale.people_alone} people, one by one",
            table("one_by_one", ("few_shot", "pas"), f"model={scale.small}", *shared,
                  f"respondents.limit={scale.people_alone}", "row_seconds=25"),
            80,
        ),
        Stage(
            "random_8b",
            "Llama-3-8B's shape in bfloat16, relative to PAS, in processes of their own",
            (*relative, f"--runs={ledger}", "name=random_8b", "model=llama3_8b", *random, *people),
            330,
            gib=22,
        ),
        Stage(
            "random_8b_others",
            "Llama-3-8B's shape in bfloat16, the other methods, one person",
            table("random_8b_others", scale.others, "model=llama3_8b", *random, *one, *measured),
            180,
            gib=22,
        ),
        Stage(
            "random_8b_nf4",
            "Llama-3-8B's shape in NF4, one person",
            table("random_8b_nf4", scale.quantized, "model=llama3_8b", *random, "model.quantization=nf4", *one),
            90,
            gib=10,
        ),
        Stage(
            "random_70b_nf4",
            "Llama-3-70B's shape in NF4, one person",
            table("random_70b_nf4", scale.largest, "model=llama3_70b", *random, *one),
            180,
            gib=46,
        ),
        Stage(
            "trained",
            f"{scale.small}, every trained row, training={scale.training}, as many people as fit",
            table("trained", TRAINED, f"model={scale.small}", *shared, f"respondents.limit={scale.people_trained}",
                  f"training={scale.training}", "training.people_limit=null", "row_seconds=20"),
            230,
        ),
    ]  # fmt: skip
    if scale.taught:
        settings = table("taught", UNTRAINED[1:4], f"model={scale.taught}", *many, "row_seconds=30")
        found.insert(3, Stage("taught", f"{scale.taught}, {scale.people} people", settings, 90))
    return found


def settings_of_people() -> tuple[str, ...]:
    """The 300 real people where they are at hand without a network, else simulated ones."""
    try:
        load_papi(download=False)
    except RespondentsError:
        return ("respondents=simulated",)
    return ("respondents=papi", "respondents.download=false")
