"""Teaching SmolLM2, resumably; what is kept is a PEFT adapter with its log, curve and command.

Learnt are the chances of every answer, told and asked, and nearness to what the untaught model would say: first in
short lists about a few facets, then in lists and portraits of every length with questions about the person.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from palign_bench.backbone import loading
from palign_bench.backbone.loading.hashes import hash_of_weights
from palign_bench.backbone.loading.settings import resolve_model
from palign_bench.files import read_json, write_json
from palign_bench.organism.taught.english import English, own_texts, perplexity
from palign_bench.organism.taught.exercises import TARGETS, Batch, Exercises, Kind
from palign_bench.organism.taught.lessons import Lessons
from palign_bench.organism.taught.reader import ADAPTER, Reader
from palign_bench.questionnaire.inventory import ipip_neo_300
from palign_bench.respondents.simulated import factor_model
from palign_bench.settings import UserError, read_option

BASE, FIGURES = "smollm2_135m", "published"  # never the 300 people's figures: they are what the model is tested on
BASE_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
TEXTS = 768  # of the untaught model's own
LEARNING_RATE, WARMUP, STEADY, FINAL = 2e-3, 30, 0.5, 0.03  # steps; share at the full rate; share of it at the end
LISTS_SHARE, LONG_SHARE = 0.25, 0.5  # of the steps: lists alone; of the others: about all facets
WEIGHTS = {"told": 1.0, "asked": 2.0, "written": 0.5}
ENGLISH_WEIGHT = 2.0
SAVE_EVERY = 50  # steps: what a killed teaching loses
_LENGTHS: dict[Kind, int] = {"list": 560, "few_facets": 1150, "all_facets": 1950}  # about, in tokens


class Batches(Dataset[Batch]):
    """The batch of every step, each drawn from its own seed.

    ``tokens``: about how many it has. ``lists``: of the first steps, which have lists alone.
    """

    def __init__(self, exercises: Exercises, steps: int, tokens: int, seed: int, lists: float):
        self.exercises, self.steps, self.tokens, self.seed = exercises, steps, tokens, seed
        self.lists = lists * steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        generator = np.random.default_rng([self.seed, step])
        kind: Kind = "all_facets" if generator.random() < LONG_SHARE else "few_facets"
        if step < self.lists:
            kind = "list"
        rows = max(1, self.tokens // _LENGTHS[kind])
        return Batch.of([self.exercises.draw(generator, kind) for _ in range(rows)])


class Teaching:
    """The model that is taught, what it is kept near to, and the optimizer, at some step of ``folder``.

    ``begun``: the folder of an adapter that goes on being taught. Raises UserError where it holds another kind.
    """

    def __init__(self, folder: Path, seed: int, device: str, dtype: str = "bfloat16", begun: Path | None = None):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.seed, self.step, self.begun = folder, seed, 0, begun
        self._course: dict[str, int | str] | None = None  # what it was begun with
        torch.set_float32_matmul_precision("high")
        loaded = loading.load(resolve_model({**read_option("model", BASE), "dtype": dtype, "device": device}))
        self.exercises = Exercises(Lessons(loaded.tokenizer, ipip_neo_300()), factor_model(FIGURES))
        texts = folder / "english.json"
        if not texts.exists():
            write_json(texts, own_texts(loaded.model, loaded.tokenizer, TEXTS, seed))
        torch.manual_seed(seed)
        self.reader = Reader(loaded.model, BASE_NAME)
        self.english = English(self.reader, read_json(texts))
        if begun is not None:
            self.reader.load(begun)
        plain = Path(__file__).with_name("plain_text.txt").read_text(encoding="utf-8")
        self.plain = loaded.tokenizer(plain, add_special_tokens=False)["input_ids"]
        self.optimizer = torch.optim.AdamW(
            self.reader.masters, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True
        )
        if (folder / "checkpoint.pt").exists():
            kept = torch.load(folder / "checkpoint.pt")
            self.step, self._course = kept["step"], kept["course"]
            self.reader.restore(kept["masters"])
            self.optimizer.load_state_dict(kept["optimizer"])

    def teach(self, steps: int, tokens: int, workers: int, stop: int | None = None) -> None:
        """From the present step to ``stop`` (None: the last) of ``steps``, with a checkpoint every `SAVE_EVERY`.

        Raises UserError for a folder that was begun with other numbers.
        """
        stop = steps if stop is None else stop
        course: dict[str, int | str] = {"steps": steps, "tokens": tokens, "seed": self.seed}
        if self.begun is not None:
            course["begin-with"] = hash_of_weights(self.begun)
        if self._course not in (None, course):
            begun = " ".join(f"--{name} {value}" for name, value in (self._course or {}).items())
            raise UserError(f"{self.folder} was begun with {begun}: give the same, or another --folder.")
        self._course = course
        drawn = Batches(self.exercises, steps, tokens, self.seed, LISTS_SHARE if self.begun is None else 0.0)
        ahead = Subset(drawn, range(self.step, stop))
        batches: Iterator[Batch] = iter(DataLoader(ahead, batch_size=None, num_workers=workers))
        bar = tqdm(batches, desc="teaching", initial=self.step, total=steps)
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            for batch in bar:
                for group in self.optimizer.param_groups:
                    group["lr"] = LEARNING_RATE * _rate(self.step, steps)
                figures = self._one(batch)
                self.step += 1
                log.write(json.dumps({"step": self.step, **figures}) + "\n")
                bar.set_postfix({name: figures.get(name) for name in ("told_known", "asked_known", "english")})
                if self.step % SAVE_EVERY == 0 or self.step == stop:
                    log.flush()
                    self._save()

    def _one(self, batch: Batch) -> dict[str, float]:
        """One optimizer step. Returns cross-entropies in nats and, as ``…_known``, how much of what is to be known of
        the person was known: 0 as who knows the population, 1 as who knows the person's facets and style.
        """
        loss, figures = _loss(self.reader, batch.to(self.reader.device))
        generator = np.random.default_rng([self.seed, self.step, 1])
        drift = self.english.drift(self.reader, int(generator.integers(len(self.english.groups))))
        (loss + ENGLISH_WEIGHT * drift).backward()
        self.reader.take_gradients()
        torch.nn.utils.clip_grad_norm_(self.reader.masters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.reader.take_masters()
        return {name: round(value.item(), 5) for name, value in {**figures, "english": drift}.items()}

    def _save(self) -> None:
        partial = self.folder / "checkpoint.partial"
        state = {"step": self.step, "course": self._course, "masters": self.reader.masters}
        torch.save({**state, "optimizer": self.optimizer.state_dict()}, partial)
        partial.rename(self.folder / "checkpoint.pt")

    def keep(self, command: str) -> Path:
        """The adapter's folder, with its log, curve, hash, command and what it lost of English."""
        import pandas as pd

        partial, finished = self.folder / "adapter.partial", self.folder / "adapter"
        partial.mkdir(exist_ok=True)
        self.reader.save(partial)
        # Steps between a checkpoint and a kill stand twice.
        log = pd.read_json(self.folder / "log.jsonl", lines=True).groupby("step").last().reset_index()
        made: dict[str, Any] = {"command": command}
        if self.begun is not None:
            made["begun_with"] = read_json(self.begun / "made.json") | {"sha256": _sha256(self.begun)}
            earlier = pd.read_csv(self.begun / "teaching.csv")
            log = pd.concat([earlier, log.assign(step=log["step"] + earlier["step"].max())])
        log.to_csv(partial / "teaching.csv", index=False)
        _plot(log, partial / "teaching.png")
        made |= {
            "sha256": _sha256(partial),
            "figures": FIGURES,
            "perplexity": round(perplexity(self.reader, self.plain), 2),
            "device": torch.cuda.get_device_name() if self.reader.device.type == "cuda" else "cpu",
        }
        write_json(partial / "made.json", made)
        partial.rename(finished)
        return finished


def _sha256(adapter: Path) -> str:
    return hashlib.sha256((adapter / ADAPTER).read_bytes()).hexdigest()


def _loss(reader: Reader, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    hidden = reader.read(batch.ids, batch.positions, batch.seen)[batch.rows, batch.places]
    log_probs = reader.logits(hidden).log_softmax(dim=-1).gather(1, batch.tokens)
    nats = -(batch.chances * log_probs).sum(dim=1)
    least = -torch.xlogy(batch.chances, batch.chances).sum(dim=1)
    loss = torch.zeros((), device=nats.device)
    figures: dict[str, Tensor] = {}
    for number, target in enumerate(TARGETS):
        places = batch.targets == number
        if not bool(places.any()):
            continue
        figures[target] = nats[places].mean()
        loss = loss + WEIGHTS[target] * figures[target]
        if target != "written":
            usual = batch.population[places].mean()
            figures[f"{target}_known"] = (usual - figures[target]) / (usual - least[places].mean())
    return loss, figures


def _rate(step: int, steps: int) -> float:
    """Share of the learning rate: a warm-up, a steady part, a cosine."""
    falling = max(0.0, (step / steps - STEADY) / (1 - STEADY))
    return min(1.0, (step + 1) / WARMUP) * (FINAL + (1 - FINAL) * (1 + math.cos(math.pi * falling)) / 2)


def _plot(log: Any, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    drawn: Sequence[tuple[str, str]] = (
        ("told_known", "known of the person, answers told"),
        ("asked_known", "known of the person, answers asked"),
        ("english", "drift from the untaught model, nats"),
    )
    smooth = log.set_index("step").reindex(columns=[name for name, _ in drawn]).rolling(10, min_periods=1).mean()
    for axes, (name, title) in zip(figure.subplots(1, len(drawn)), drawn, strict=True):
        axes.plot(smooth[name].dropna(), linewidth=0.9)
        axes.set(xlabel="step", ylim=None if name == "english" else (-0.5, 1))
        axes.set_title(title, fontsize=9)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
