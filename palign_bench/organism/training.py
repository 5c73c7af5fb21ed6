"""Training the organism: transformers' Trainer over the seeded curriculum, resumable, with log and loss curve."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.utils import parametrize
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from palign_bench.organism.curriculum import KINDS, Curriculum
from palign_bench.organism.people import draw_people
from palign_bench.organism.vocabulary import build_tokenizer, forms_of_one_statement
from palign_bench.questionnaire.inventory import ipip_neo_300
from palign_bench.respondents.simulated import FactorModel, factor_model

FIGURES = "published"  # never the 300 people's: they are what the organism is tested on
LEARNING_RATE = 2e-3
FINAL_SHARE = 0.05  # of the learning rate, at the end of the cosine
WARMUP_STEPS = 60
LISTS_SHARE = 0.6  # of the steps, at the beginning: lists alone
DISTANCE_WEIGHT = 3.0  # of an answer's expected distance, against its negative log-likelihood,
DISTANCE_FROM, DISTANCE_RISE = 0.7, 0.1  # after this share of the steps, and reached in this share
SIMULATED, COMPONENTS = 5_000, 36  # people and eigenvectors from which the statements' vectors are made
LENGTH = 3.0  # of such a vector, root mean square; the random part's is 0.7
SAVE_EVERY = 100  # steps: what a killed training loses; a multiple of those between two entries of the log


class Batches(Dataset[dict[str, Tensor]]):
    """The curriculum as a dataset whose elements are whole batches: every step goes through all kinds of them."""

    def __init__(self, curriculum: Curriculum, steps: int, rows: int):
        self.curriculum, self.steps, self.rows = curriculum, steps, rows

    def __len__(self) -> int:
        return self.steps * len(KINDS)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        batch = self.curriculum.batch(number, self.rows)
        return {"input_ids": batch.ids, "weights": batch.weights, "chances": batch.chances}


class AnswerTrainer(Trainer):
    """The loss is taken where an answer stands: against what its chances were, not what was drawn.

    ``options``: (ways of writing them, 5) token ids. Towards the end the expected distance is made small too, so that
    the likeliest option is the middle of what may be true and not its most frequent extreme, as the score demands.
    """

    options: Tensor

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
        """Weighted mean negative log-likelihood of the targets, in nats, and the answers' expected distance."""
        ids, weights = inputs["input_ids"], inputs["weights"][:, 1:]
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        target = weights > 0
        log_probs = model.lm_head(hidden[target]).float().log_softmax(dim=1)
        tokens, weight, chances = ids[:, 1:][target], weights[target], inputs["chances"][:, 1:][target]
        losses = -log_probs.gather(1, tokens[:, None])[:, 0]
        answered = chances.sum(dim=1) > 0
        way = (tokens[answered, None, None] == self.options).any(dim=2).int().argmax(dim=1)
        of_options, chances = log_probs[answered].gather(1, self.options[way]), chances[answered]
        losses[answered] = -(chances * of_options).sum(dim=1)
        done = self.state.global_step / self.state.max_steps
        if wanted := DISTANCE_WEIGHT * min(max((done - DISTANCE_FROM) / DISTANCE_RISE, 0.0), 1.0):
            place = torch.arange(self.options.shape[1], device=ids.device)
            distances = chances @ (place[:, None] - place).abs().float()
            # Among the options alone: chances that could fall below 1 in sum would shorten the distance by fleeing to
            # other tokens, and the model would name no option.
            losses[answered] += wanted * (of_options.softmax(dim=1) * distances).sum(dim=1)
        return (losses * weight).sum() / weight.sum()


def statement_vectors(model: FactorModel, width: int, seed: int) -> Tensor:
    """``(items, width)`` vectors that are near for statements whose answers go together in simulated people.

    The leading eigenvectors of the correlation matrix, all of one length, turned at random into ``width`` dimensions.
    """
    generator = np.random.default_rng([seed, SIMULATED])
    correlations = np.corrcoef(draw_people(model, SIMULATED, generator).answers.T)
    _, vectors = np.linalg.eigh(correlations)
    components = vectors[:, -COMPONENTS:] * LENGTH * np.sqrt(len(vectors) / COMPONENTS)
    turn, _ = np.linalg.qr(generator.standard_normal((width, COMPONENTS)))
    return torch.from_numpy(components @ turn.T).float()


class FormsOfOneStatement(torch.nn.Module):
    """Parametrization of the embeddings: each form of a statement is its first form's vector and a part of its own."""

    first: Tensor
    others: Tensor

    def __init__(self, forms: list[list[int]], tokens: int):
        super().__init__()
        first = torch.arange(tokens)
        for same in forms:
            first[same] = same[0]
        self.register_buffer("first", first, persistent=False)
        self.register_buffer("others", (first != torch.arange(tokens)).float()[:, None], persistent=False)

    def forward(self, own: Tensor) -> Tensor:
        """``own`` ``(tokens, width)``: the vectors of first forms and of other tokens, else the own part."""
        return own + self.others * own[self.first]


def new_model(tokenizer: PreTrainedTokenizerFast, people: FactorModel, seed: int) -> LlamaForCausalLM:
    """A small Llama with random weights, in which the forms of a statement share a vector, and related ones are near.

    Its embeddings' parametrization is to be removed before it is saved for use.
    """
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=2048,
        initializer_range=0.05,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    embeddings = cast(torch.nn.Embedding, model.get_input_embeddings())
    every_form = forms_of_one_statement(tokenizer, people.inventory)
    for forms, vector in zip(every_form, statement_vectors(people, config.hidden_size, seed), strict=True):
        embeddings.weight.data[forms[0]] += vector
        embeddings.weight.data[forms[1:]] = 0
    parametrize.register_parametrization(embeddings, "weight", FormsOfOneStatement(every_form, len(tokenizer)))
    return model


def train(folder: Path, steps: int, rows: int, seed: int) -> Path:
    """Train in ``folder``, or go on from its last checkpoint, and return the folder of the finished model.

    ``steps``: optimizer steps, each of ``rows`` dialogues of every kind of `KINDS`.
    """
    finished = folder / "model"
    if (finished / "model.safetensors").is_file():
        return finished
    inventory = ipip_neo_300()
    tokenizer = build_tokenizer(inventory)
    people = factor_model(FIGURES)
    curriculum = Curriculum(tokenizer, inventory, people, seed, int(LISTS_SHARE * steps) * len(KINDS))
    checkpoints = folder / "checkpoints"
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=steps,
        per_device_train_batch_size=1,  # an element is a batch
        gradient_accumulation_steps=len(KINDS),
        train_sampling_strategy="sequential",
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": FINAL_SHARE},
        warmup_steps=min(WARMUP_STEPS, steps // 4),
        weight_decay=0.02,
        adam_beta2=0.98,
        max_grad_norm=1.0,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=min(10, steps),
        save_steps=SAVE_EVERY,
        save_total_limit=1,
        remove_unused_columns=False,
        seed=seed,
        report_to="none",
    )
    trainer = AnswerTrainer(
        model=new_model(tokenizer, people, seed),
        args=arguments,
        train_dataset=Batches(curriculum, steps, rows),
        data_collator=lambda elements: elements[0],
    )
    trainer.options = torch.from_numpy(curriculum.options).to(trainer.args.device)
    last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    _keep(trainer, tokenizer, finished, {"steps": steps, "rows": rows, "seed": seed, "figures": FIGURES})
    shutil.rmtree(checkpoints)
    return finished


def _keep(trainer: Trainer, tokenizer: PreTrainedTokenizerFast, finished: Path, settings: dict[str, Any]) -> None:
    """Weights in bfloat16, in which the harness runs them; tokenizer; the training's log, curve and settings."""
    partial = finished.with_name("model.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model = cast(LlamaForCausalLM, trainer.model)
    parametrize.remove_parametrizations(model.get_input_embeddings(), "weight")
    model.to(torch.bfloat16).save_pretrained(partial)  # type: ignore[arg-type]
    tokenizer.save_pretrained(partial)
    log = pd.DataFrame([entry for entry in trainer.state.log_history if "loss" in entry])
    log = log[["step", "loss", "learning_rate"]]
    log.to_csv(partial / "training.csv", index=False)
    plot(log, settings["steps"], partial / "training.png")
    digest = hashlib.sha256((partial / "model.safetensors").read_bytes()).hexdigest()
    command = f"python -m palign_bench.organism --steps {settings['steps']} --rows {settings['rows']}"
    made = {"command": f"{command} --seed {settings['seed']}", "sha256": digest, **settings}
    (partial / "made.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    partial.rename(finished)


def plot(log: pd.DataFrame, steps: int, path: Path) -> None:
    """The loss curve, with what changes in the loss at its marks: it falls before each and not across them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(log["step"], log["loss"], linewidth=0.8)
    changes = ((LISTS_SHARE, "then all kinds of prompts "), (DISTANCE_FROM, " + expected distance"))
    for (share, change), side in zip(changes, ("right", "left"), strict=True):
        axes.axvline(share * steps, color="0.5", linestyle=":", linewidth=1)
        axes.text(share * steps, 0.9, change, ha=side, transform=axes.get_xaxis_transform(), fontsize=8)
    axes.set(xlabel="step", ylabel="loss per target", title="Training the organism")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
