"""Teaching SmolLM2 stage by stage, resumably; what is kept is a PEFT adapter with its log, curve and command."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from palign_bench.backbone import loading
from palign_bench.backbone.loading.settings import resolve_model
from palign_bench.backbone.loading.weights import LoadedModel
from palign_bench.organism.taught.english import English, own_texts
from palign_bench.organism.taught.lessons import Lessons
from palign_bench.organism.taught.network import MAPS, Network, Tree
from palign_bench.organism.taught.people import FACTORS, AnswerFigures
from palign_bench.organism.taught.stages import AGREEING, ANSWERS, LOOKING, PEOPLE, STAGES, STATEMENTS, Classroom, Stage
from palign_bench.organism.taught.targets import Scale, Targets
from palign_bench.questionnaire.inventory import ipip_neo_300
from palign_bench.respondents.simulated import factor_model
from palign_bench.settings import read_option

BASE, FIGURES = "smollm2_135m", "published"  # never the 300 people's figures: they are what the model is tested on
RANK, ALPHA = 16, 32
WARMUP, STEADY, FINAL = 20, 0.6, 0.05  # steps; share at the full learning rate; share of it at the cosine's end
SAVE_EVERY = 25  # steps: what a killed teaching loses
_SLOW = 8  # pairs of rotary dimensions that hardly turn within a list; heads match statements in them
_POINTED = 0.8  # strength of that match at the start


def teach(folder: Path, share: float, seed: int) -> Path:
    """Teach in ``folder`` and return the adapter's; each stage takes ``share`` of its steps.

    A teaching that was cut off goes on from its last checkpoint; a finished one is returned as it is.
    """
    finished = folder / "adapter"
    if (finished / "adapter_model.safetensors").is_file():
        return finished
    folder.mkdir(parents=True, exist_ok=True)
    loaded = loading.load(resolve_model({**read_option("model", BASE), "dtype": "float32"}))
    network = Network(loaded.model, RANK, ALPHA / RANK, seed)
    texts = _texts(folder / "english.json", loaded, seed)
    english = English.of(network, texts, (ANSWERS, PEOPLE, network.layers))
    room, scales = _classroom(network, loaded.tokenizer)
    for number, stage in enumerate(STAGES):
        steps = max(1, round(share * stage.steps))
        _run(folder, room, stage, steps, english, scales, [seed, number], STAGES[number - 1] if number else None)
    _keep(folder, finished, network, {"share": share, "seed": seed, "figures": FIGURES})
    return finished


def _texts(path: Path, loaded: LoadedModel, seed: int) -> list[list[int]]:
    if not path.exists():
        written = own_texts(loaded.model, loaded.tokenizer, seed)
        path.with_suffix(".partial").write_text(json.dumps(written), encoding="utf-8")
        path.with_suffix(".partial").rename(path)
    texts: list[list[int]] = json.loads(path.read_text(encoding="utf-8"))
    return texts


def _classroom(network: Network, tokenizer: Any) -> tuple[Classroom, dict[int, Scale]]:
    """With the scales of the layers that are taught, taken from lists before any teaching."""
    model = factor_model(FIGURES)
    lessons, figures = Lessons(tokenizer, ipip_neo_300()), AnswerFigures.of(model)
    generator, read = np.random.default_rng(99), []
    for _ in range(4):
        told, _ = lessons.draw(generator, 50, 4)
        said = lessons.listing(told, generator.integers(1, 6, len(told)))
        with torch.no_grad():
            read.append(network.run(Tree.of(said.ids), 0, PEOPLE, keep=(STATEMENTS, ANSWERS, PEOPLE))[1])
    scales = {}
    for layer in (STATEMENTS, ANSWERS, PEOPLE):
        states = torch.cat([each[layer][4:] for each in read])  # the first places' states are enormous
        scales[layer] = Scale(states.mean(dim=0), states.std(dim=0))
    return Classroom(network, lessons, model, figures, Targets(lessons, figures, scales[STATEMENTS])), scales


def _run(
    folder: Path,
    room: Classroom,
    stage: Stage,
    steps: int,
    english: English,
    scales: Mapping[int, Scale],
    seed: list[int],
    last: Stage | None,
) -> None:
    """One stage, from its own checkpoint or the last stage's end."""
    network, layers = room.network, range(stage.bottom, stage.top)
    trained = network.differences(layers)
    optimizer = torch.optim.AdamW(trained, lr=stage.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    own, done = folder / f"{stage.name}.pt", 0
    if own.exists():
        kept = torch.load(own)
        done = kept["step"]
        _take(network, kept)
        optimizer.load_state_dict(kept["optimizer"])
    elif last is not None:
        _take(network, torch.load(folder / f"{last.name}.pt"))
        if stage.name == "people":
            point_heads(room)
    scale = scales[stage.top].deviation if stage.top in scales else None
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
        for step in tqdm(range(done, steps), desc=stage.name, initial=done, total=steps):
            for group in optimizer.param_groups:
                group["lr"] = stage.learning_rate * _rate(step, steps)
            entries = []
            for row in range(stage.rows):
                torch.manual_seed(step)
                loss, figures = stage.lesson(room, np.random.default_rng([*seed, step, row]))
                (loss / stage.rows).backward()
                entries.append({"loss": loss.item(), **figures})
            if step % stage.english_every == 0:
                drift = english.loss(network, step // stage.english_every, stage.bottom, stage.top, scale)
                (stage.english_weight * drift).backward()
                entries[0]["english"] = drift.item()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            network.merge(layers)
            log.writelines(json.dumps({"stage": stage.name, "step": step + 1, **each}) + "\n" for each in entries)
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
                log.flush()
                state = {"a": network.a, "b": network.b, "optimizer": optimizer.state_dict(), "step": step + 1}
                torch.save(state, own.with_suffix(".partial"))
                own.with_suffix(".partial").rename(own)


def _rate(step: int, steps: int) -> float:
    """Share of the learning rate: a warm-up, a steady part, a cosine."""
    done = step / steps
    falling = max(0.0, (done - STEADY) / (1 - STEADY))
    return min(1.0, (step + 1) / WARMUP) * (FINAL + (1 - FINAL) * (1 + math.cos(math.pi * falling)) / 2)


@torch.no_grad()
def _take(network: Network, kept: Mapping[str, Any]) -> None:
    for name in ("a", "b"):
        for layer, values in zip(getattr(network, name), kept[name], strict=True):
            for own, value in zip(layer, values, strict=True):
                own.copy_(value)
    network.merge(range(network.layers))


@torch.no_grad()
def point_heads(room: Classroom) -> None:
    """Start the heads of `LOOKING` from matching statements: queries and keys are parts of the statements' vectors.

    Both differences start at zero, and a match is a product of two: from there gradients find it after hundreds of
    steps. It stands in the rotary dimensions that hardly turn, so that it does not matter how far an answer lies back.
    """
    network, targets, lessons = room.network, room.targets, room.lessons
    generator = np.random.default_rng(17)
    told, _ = lessons.draw(generator, 80, 4, of_few_facets=False)
    said = lessons.listing(told, generator.integers(1, 6, len(told)))
    _, kept, _ = network.run(Tree.of(said.ids), 0, max(LOOKING), keep=LOOKING)
    half = network.width // 2
    slow = torch.tensor([*range(half - _SLOW, half), *range(network.width - _SLOW, network.width)])
    asking, answering = targets.of_item[:FACTORS], targets.of_answer[2 : 2 + FACTORS]
    for number, layer in enumerate(LOOKING):
        drawn = torch.randn(FACTORS, RANK, generator=torch.Generator().manual_seed(50 + number))
        chosen = torch.linalg.qr(drawn)[0].t()
        for which, directions, places in ((0, asking, said.asks), (1, answering, said.ends)):
            size = kept[layer][places].square().mean(dim=1).sqrt().mean()
            offset = directions @ (targets.scale.mean / targets.scale.deviation)
            free = chosen - torch.outer(chosen @ offset, offset) / offset.square().sum()
            network.a[layer][which].copy_(
                free @ (directions / targets.scale.deviation) * size / network.norms[layer][0]
            )
            network.b[layer][which].zero_()
            for head in range(len(network.b[layer][which]) // network.width):
                contrary = which == 0 and head >= AGREEING
                network.b[layer][which][head * network.width + slow, torch.arange(RANK)] = (
                    -_POINTED if contrary else _POINTED
                )
    network.merge(LOOKING)


def adapter_weights(network: Network) -> dict[str, Tensor]:
    """The differences under PEFT's names, in bfloat16."""
    return {
        f"base_model.model.model.layers.{layer}.{name}.lora_{letter}.weight": each.detach().bfloat16().contiguous()
        for layer in range(network.layers)
        for which, name in enumerate(MAPS)
        for letter, each in (("A", network.a[layer][which]), ("B", network.b[layer][which]))
    }


def write_adapter(folder: Path, network: Network) -> None:
    """A folder that PEFT reads."""
    modules = [name.rpartition(".")[2] for name in MAPS]
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=modules, task_type="CAUSAL_LM", inference_mode=True)
    config.base_model_name_or_path = "HuggingFaceTB/SmolLM2-135M-Instruct"
    config.save_pretrained(str(folder))
    save_file(adapter_weights(network), folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _keep(folder: Path, finished: Path, network: Network, settings: Mapping[str, Any]) -> None:
    import pandas as pd

    partial = finished.with_suffix(".partial")
    partial.mkdir(exist_ok=True)
    write_adapter(partial, network)
    # Steps between a checkpoint and a kill stand twice, with the same figures.
    log = pd.read_json(folder / "log.jsonl", lines=True).groupby(["stage", "step"], sort=False).mean().reset_index()
    log.to_csv(partial / "teaching.csv", index=False)
    _plot(log, partial / "teaching.png")
    digest = hashlib.sha256((partial / "adapter_model.safetensors").read_bytes()).hexdigest()
    command = f"python -m palign_bench.organism.taught --share {settings['share']} --seed {settings['seed']}"
    (partial / "made.json").write_text(json.dumps({"command": command, "sha256": digest, **settings}, indent=1) + "\n")
    partial.rename(finished)


def _plot(log: Any, path: Path) -> None:
    """The loss of every stage, each on an axis of its own: they add up different things."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    for axes, stage in zip(figure.subplots(1, len(STAGES)), STAGES, strict=True):
        of_stage = log[log["stage"] == stage.name].set_index("step")["loss"]
        axes.plot(of_stage.rolling(10, min_periods=1).mean(), linewidth=0.9)
        axes.set(title=stage.name, xlabel="step")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
