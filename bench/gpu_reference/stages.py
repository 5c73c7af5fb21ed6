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
UNTRAINED = ("vanilla", "few_shot", "pas", "personality_prompt_template", "readout")
START = 20.0  # seconds in which a command has loaded its libraries and its model


@dataclass(frozen=True)
class Stage:
    """One command.

    ``seconds``: what it needs at least on a GPU to tell something. ``rows``: of its table; 0 for `python -m bench`.
    ``gib``: GPU memory that it needs.
    """

    name: str
    shows: str
    arguments: tuple[str, ...]
    seconds: float
    rows: int = 0
    gib: float = 2.0

    def command(self, seconds: float) -> list[str]:
        """What is run, in so many seconds: a row begins nobody once its equal part of them is over."""
        if not self.rows:
            return [sys.executable, "-m", "bench", *self.arguments]
        each = max((seconds - START) / self.rows, 5.0)
        return [sys.executable, "-m", "palign_bench", *self.arguments, f"row_seconds={each:.0f}"]


@dataclass(frozen=True)
class Scale:
    """How much every stage does: on a GPU, or in a rehearsal."""

    small: str  # the small model
    taught: str | None  # the small model that was taught people; None where there is none
    shape: tuple[str, ...]  # what makes the large models' shapes tiny
    people: int
    people_alone: int  # of the stage that answers one by one
    people_of_shapes: int  # of the large shapes, of whom only the first pays for first calls; two at most are trained
    people_trained: int
    cohort: int
    steps: int  # optimizer steps that are measured on the large shapes
    training: str
    plain_items: int  # that plain generation is timed on
    repeats: int
    methods: tuple[str, ...]  # of the large shape in bfloat16
    others: tuple[str, ...]  # which come last
    quantized: tuple[str, ...]  # in NF4; the paper's DPO and PPO are


ON_A_GPU = Scale(
    small="smollm2_135m",
    taught=TAUGHT if TAUGHT in options("model") else None,
    shape=(),
    people=300,
    people_alone=20,
    people_of_shapes=3,
    people_trained=300,
    cohort=16,
    steps=4,
    training="paper",
    plain_items=10,
    repeats=3,
    methods=("few_shot", "pas", "lora"),
    others=("vanilla", "readout", "prompt_tuning", "rloo"),
    quantized=("few_shot", "pas", "qlora", "dpo", "ppo"),
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
    people_of_shapes=1,
    people_trained=1,
    cohort=2,
    steps=1,
    training="quick",
    plain_items=2,
    repeats=1,
    methods=("pas", "lora"),
    others=("readout",),
    quantized=("few_shot", "ppo"),
)


def stages(ledger: Path, people: Sequence[str], scale: Scale) -> list[Stage]:
    """The stages in order, the most telling first. ``people``: the settings that name the respondents."""
    shared = (f"runs={ledger}", "tracking=none", *people)
    random = ("model.weights=random", *scale.shape, *shared)
    one, few = "respondents.limit=1", f"respondents.limit={scale.people_of_shapes}"
    trained = f"training.people_limit={min(2, scale.people_of_shapes)}"
    measured = ("model=llama3_8b", *random, few, "training=measured", f"training.steps={scale.steps}", trained)
    many = (*shared, f"respondents.limit={scale.people}", f"model.cohort={scale.cohort}")

    def table(name: str, shows: str, methods: Sequence[str], *settings: str, seconds: float, gib: float = 2) -> Stage:
        arguments = ("experiment=table1", f"name={name}", f"method={','.join(methods)}", *settings)
        return Stage(name, shows, arguments, seconds, len(methods), gib)

    source, model = people[0].partition("=")[2], scale.taught or scale.small
    timing = ("--plain-items", str(scale.plain_items), "--repeats", str(scale.repeats))
    bench = ("--model", scale.small, "--respondents", source, "--runs", str(ledger), *timing)
    shape = ("--model", scale.small) if scale.shape else ("--model", "llama3_8b", "--weights", "random")
    large = (*shape, "--answering", "--respondents", source, "--runs", str(ledger / "bench_8b"), *timing)
    found = [
        Stage("bench", f"share of the matrix rate, and plain generation, of {scale.small}", bench, 40),
        table("together", f"{scale.small}, {scale.people} people, {scale.cohort} in one pass", UNTRAINED,
              f"model={scale.small}", *many, seconds=55),
        table("random_8b", "Llama-3-8B's shape in bfloat16", scale.methods, *measured, seconds=45, gib=22),
        table("random_8b_nf4", "Llama-3-8B's shape in NF4", scale.quantized, *measured, "model.quantization=nf4",
              seconds=55, gib=10),
        Stage("bench_8b", "share of the matrix rate of Llama-3-8B's shape in bfloat16", large, 35, gib=22),
        table("random_70b_nf4", "Llama-3-70B's shape in NF4, one person", ("few_shot", "pas"), "model=llama3_70b",
              *random, one, seconds=70, gib=46),
        table("one_by_one", f"{scale.small}, {scale.people_alone} people, one by one", ("few_shot", "pas"),
              f"model={scale.small}", *shared, f"respondents.limit={scale.people_alone}", seconds=30),
        table("trained", f"{model}, trained, training={scale.training}, as many people as fit", TRAINED,
              f"model={model}", *shared, f"respondents.limit={scale.people_trained}",
              f"training={scale.training}", f"training.cohort={scale.cohort}", "training.people_limit=null",
              seconds=80),
        table("random_8b_others", "Llama-3-8B's shape in bfloat16, other methods", scale.others, *measured,
              seconds=60, gib=22),
    ]  # fmt: skip
    if scale.taught:
        shows = f"{scale.taught}, {scale.people} people"
        found.insert(2, table("taught", shows, UNTRAINED, f"model={scale.taught}", *many, seconds=45))
    return found


def settings_of_people() -> tuple[str, ...]:
    """The 300 real people where they are at hand without a network, else simulated ones."""
    try:
        load_papi(download=False)
    except RespondentsError:
        return ("respondents=simulated",)
    return ("respondents=papi", "respondents.download=false")
