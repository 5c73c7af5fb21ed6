"""Which attention heads tell a person's yes from their no, and in which direction (paper, section 4.2)."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from baselines.pas.logistic import decision_values, fit_logistic
from palign_bench.backbone.base import Backbone
from palign_bench.backbone.chat_format import Dialogue
from palign_bench.questionnaire import prompts
from palign_bench.questionnaire.inventory import Answers, Inventory
from palign_bench.settings import UserError

# The released code's, the question answered with its first and last option, and that of the paper's section 4.2.
PROBE_PROMPTS = ("options", "agree")
DIRECTIONS = ("mass_mean", "probe", "random")
TRAINING_SHARE = 0.6  # of the samples (paper 4.2); the rest validates


@dataclass(frozen=True)
class ProbeActivations:
    """Head outputs for every known item, opened once with agreement and once with disagreement.

    ``features``: ``(layers × heads, samples, head_dim)``, float32, on the device where the backbone left them. Samples
    ``2 i`` and ``2 i + 1`` belong to item ``numbers[i]``: first the agreeing one. No person enters, so all share them.
    """

    numbers: tuple[int, ...]
    features: Tensor
    layers: int
    heads: int


@dataclass(frozen=True)
class ProbeSamples:
    """One person's labelled samples: rows of `ProbeActivations`, their labels 0 or 1, and which of them train."""

    rows: Tensor  # (m,) int64
    labels: Tensor  # (m,) int64
    training: Tensor  # (m,) bool

    @property
    def unfit(self) -> str | None:
        """Why no probe can be fitted and validated on these samples; None if it can."""
        if len(self.rows) == 0:
            return "no known answer other than neutral or missing"
        if len(self.labels[self.training].unique()) < 2:
            return "too few answers: the probe's training samples have only one label"
        return None


@dataclass(frozen=True)
class HeadDirections:
    """What PAS fits for one person; the shift of a chosen head is alpha times its row of ``vectors``.

    ``heads``: (layer, head), best probe first. ``vectors``: ``(k, head_dim)`` float64, sigma × unit direction (paper
    Eq. 5). ``validation_accuracy``: mean over the chosen heads' probes. ``unfit``: why there are none, else None.
    """

    heads: tuple[tuple[int, int], ...]
    vectors: Tensor
    validation_accuracy: float | None
    unfit: str | None = None

    def shifts(self, alpha: float, activations: ProbeActivations) -> Tensor:
        """The shift of every head, float32 ``(layers, heads × head_dim)`` on the CPU; zero for heads not chosen."""
        width = self.vectors.shape[1]
        shifts = torch.zeros(activations.layers, activations.heads, width)
        layer, head = torch.tensor(self.heads).T
        shifts[layer, head] = (alpha * self.vectors).float().cpu()
        return shifts.flatten(1)


def probe_dialogues(inventory: Inventory, probe_prompt: str) -> tuple[tuple[int, ...], list[Dialogue]]:
    """The known items' numbers, scale by scale (A, C, E, N, O) in prompt order, and two dialogues for each."""
    in_order = tuple(n for scale in inventory.scales for n in inventory.known if inventory[n].scale == scale)
    options = probe_prompt == "options"
    ask = prompts.probe_question if options else prompts.agree_question
    openings = (inventory.letters[0], inventory.letters[-1]) if options else ("Answer: Yes", "Answer: No")
    dialogues: list[Dialogue] = [
        (prompts.NEUTRAL_SYSTEM_PROMPT, ask(inventory, item), opening)
        for item in inventory.select(in_order)
        for opening in openings
    ]
    return in_order, dialogues


def collect_activations(backbone: Backbone, inventory: Inventory, probe_prompt: str) -> ProbeActivations:
    """Read the head outputs of all probe dialogues. Raises UserError if some are not finite."""
    numbers, dialogues = probe_dialogues(inventory, probe_prompt)
    outputs = backbone.head_activations(dialogues)
    if not bool(torch.isfinite(outputs).all()):
        raise UserError("The model's head outputs hold values that are not finite; try model.dtype=float32.")
    samples, layers, heads, width = outputs.shape
    features = outputs.permute(1, 2, 0, 3).reshape(layers * heads, samples, width).contiguous()
    return ProbeActivations(numbers, features, layers, heads)


def label_samples(
    numbers: Sequence[int], answers: Answers, *, seed: int, by_item: bool, neutral: float = 3
) -> ProbeSamples:
    """One person's samples: agreement is labelled 1 on items that they agree with, 0 on those that they disagree with.

    ``answers`` are in the protocol's orientation; neutral and missing ones are left out. 60 % of the samples train.
    ``by_item`` keeps an item's two samples on the same side; the released code draws single samples.
    """
    rows, labels = [], []
    for index, number in enumerate(numbers):
        answer = answers.get(number, neutral)
        if answer != neutral:
            agrees = int(answer > neutral)
            rows += [2 * index, 2 * index + 1]
            labels += [agrees, 1 - agrees]
    units = rows[::2] if by_item else rows
    drawn = set(random.Random(f"pas-split-{seed}").sample(units, int(TRAINING_SHARE * len(units))))
    training = [(row - row % 2 if by_item else row) in drawn for row in rows]
    return ProbeSamples(
        torch.tensor(rows, dtype=torch.int64),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(training, dtype=torch.bool),
    )


def fit_directions(
    activations: ProbeActivations,
    samples: ProbeSamples,
    *,
    k: int,
    direction: str,
    rank_on_training_too: bool,
    penalty: float,
    seed: int = 0,
) -> HeadDirections:
    """Probe every head on one person's samples; keep the best ``k`` heads and their directions.

    Heads are ranked by validation accuracy or, with ``rank_on_training_too``, by its mean with that on training
    samples. ``direction``: "random" is a control, drawn by ``seed``, with the heads and lengths of "mass_mean".
    """
    features = activations.features
    if samples.unfit is not None:
        return HeadDirections((), features.new_zeros(0, features.shape[2]), None, samples.unfit)
    labels = torch.zeros(features.shape[1])
    weight = torch.zeros_like(labels)
    labels[samples.rows] = samples.labels.float()
    weight[samples.rows[samples.training]] = 1.0
    weights, intercepts = fit_logistic(features, labels, penalty, weight)
    rows = samples.rows.to(features.device)
    right = ((decision_values(features[:, rows], weights, intercepts).cpu() > 0) == samples.labels.bool()).double()
    validation = right[:, ~samples.training].mean(1)
    training = right[:, samples.training].mean(1)
    chosen = best_heads(torch.stack([validation, training]).mean(0) if rank_on_training_too else validation, k)
    vectors = scaled_directions(
        features[chosen][:, rows], samples.labels, weights[chosen] if direction == "probe" else None
    )
    if direction == "random":  # drawn for every head, so that a refit with other heads moves those it keeps alike
        drawn = torch.randn(len(features), vectors.shape[1], generator=torch.Generator().manual_seed(seed))
        vectors = vectors.norm(dim=1, keepdim=True) * normalize(drawn[chosen].to(vectors), dim=1)
    return HeadDirections(
        heads=tuple(divmod(head, activations.heads) for head in chosen),
        vectors=vectors,
        validation_accuracy=float(validation[chosen].mean()),
    )


def best_heads(merit: Tensor, k: int) -> list[int]:
    """The ``k`` heads of highest merit; among equals the later head comes first, as in the released code."""
    return torch.argsort(merit, stable=True).flip(0)[:k].tolist()


def scaled_directions(samples: Tensor, labels: Tensor, probe_weights: Tensor | None) -> Tensor:
    """Sigma × unit direction per head, float64 ``(heads, head_dim)``, from ``samples (heads, m, head_dim)``.

    The direction is that of ``probe_weights (heads, head_dim)`` or, without them, the mean of the samples labelled 1
    minus the mean of those labelled 0; sigma is the population standard deviation of the samples' projections on it.
    """
    samples = samples.double()
    if probe_weights is None:
        agreeing = labels.bool().to(samples.device)
        direction = samples[:, agreeing].mean(1) - samples[:, ~agreeing].mean(1)
    else:
        direction = probe_weights
    length = direction.norm(dim=1, keepdim=True)
    unit = direction / torch.where(length > 0, length, 1.0)  # a head that tells nothing apart is not shifted
    sigma = (samples @ unit[:, :, None]).squeeze(-1).std(dim=1, correction=0)
    return sigma[:, None] * unit
