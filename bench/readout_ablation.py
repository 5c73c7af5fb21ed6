"""What each part of the readout is worth, on all people: ``python -m bench.readout_ablation``.

Rows are variants; every choice in them is made on known answers (column ``known``: leave-one-out predictions of these);
held-out answers enter the column ``held out`` alone, which nothing is chosen on. Protocol `corrected`.
"""

import argparse
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from baselines.readout import predictors
from palign_bench.aligner import Case
from palign_bench.backbone.loading.settings import resolve_model
from palign_bench.backbone.loading.weights import load
from palign_bench.backbone.local import LocalBackbone
from palign_bench.backbone.parts.gaussian_process import fit
from palign_bench.backbone.parts.ordinal import medians, normal_scores, option_shares, thresholds_of
from palign_bench.backbone.parts.statements import (
    FeatureRecipe,
    ItemKernel,
    contrast_features,
    exponential_kernel,
    unit_features,
)
from palign_bench.questionnaire.inventory import HIGHEST, LOWEST, Inventory, ipip_neo_300
from palign_bench.questionnaire.prompts import statement_as_worded
from palign_bench.questionnaire.protocol import Corrected
from palign_bench.questionnaire.scoring import as_matrix, cross_composites
from palign_bench.report.pictures.traits import scores_of
from palign_bench.report.specificity import others_and_own
from palign_bench.report.statistics import mean_interval, pearson
from palign_bench.respondents import load_papi
from palign_bench.run.methods import make_aligners
from palign_bench.settings import read_option

DEPTHS = (0.5, 0.75, 0.9, 1.0)
UPPER = (1, 2, 3)  # of DEPTHS: the method's
NOISES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.5, 3.0)


class Ablation:
    """People, items and the printing of one row."""

    def __init__(self, model: str):
        self.inventory: Inventory = ipip_neo_300()
        self.protocol = Corrected(self.inventory)
        self.backbone = LocalBackbone(load(resolve_model(read_option("model", model))), self.protocol)
        self.people = load_papi().people
        self.known, self.held_out = list(self.inventory.known), list(self.inventory.held_out)
        answers = [person.answers for person in self.people]
        self.everything, self.known_answers, self.truth = (
            torch.from_numpy(as_matrix(numbers, answers))
            for numbers in (list(self.inventory.column), self.known, self.held_out)
        )
        self._features: dict[str, Tensor] = {}

    def row(self, name: str, known: Tensor | None, held_out: Tensor) -> np.ndarray:
        """Print a variant's line; returns each person's composite."""
        crossed = cross_composites(self.inventory, self.held_out, held_out.numpy(), self.truth.numpy())
        own = crossed.diagonal()
        people = len(own)
        specificity = (np.nansum(crossed) - own.sum()) / (people * (people - 1)) - own.mean()
        low, high = mean_interval(own) or (float("nan"), float("nan"))
        chosen = "" if known is None else f"{self.left_out_composite(known).mean():.3f}"
        print(
            f"| {name} | {chosen} | {own.mean():.3f} [{low:.3f}, {high:.3f}] | {specificity:.2f} "
            f"| {self.trait_correlation(held_out):.2f} |",
            flush=True,
        )
        return own

    def left_out_composite(self, predicted: Tensor) -> np.ndarray:
        """Composite of leave-one-out predictions of known answers, per person."""
        own = np.arange(len(self.people))
        return others_and_own(self.inventory, self.known, predicted.numpy(), self.known_answers.numpy(), own)[1]

    def trait_correlation(self, predicted: Tensor) -> float:
        """Mean over the domains of the correlation across people with the held-out trait scores."""
        items = self.inventory.select(self.held_out)
        signs = np.array([item.sign for item in items])
        one, two = (
            scores_of(items, signs * (table.numpy() - 3), list(self.inventory.scales), "scale").T
            for table in (predicted, self.truth)
        )
        return float(np.mean([pearson(own, other) or 0.0 for own, other in zip(one, two, strict=True)]))

    def alone(self, kernel: ItemKernel, ordinal: bool = True, choice: str = "person") -> tuple[Tensor, Tensor]:
        """Predicted known (leave-one-out) and held-out answers, each person alone.

        ``choice``: the noise by ``person``, or ``pooled`` over everybody's known answers.
        """
        shares = option_shares(self.known_answers)
        centre = self.known_answers.nanmean(1, keepdim=True)
        targets = normal_scores(self.known_answers, shares) if ordinal else self.known_answers - centre
        inner, shape = kernel.between(self.known, self.known), (len(NOISES), *targets.shape)
        means, coefficients = torch.full(shape, torch.nan).double(), torch.zeros(shape).double()
        for row, present in enumerate(~targets.isnan()):
            fitted = fit(inner[present][:, present], targets[row, present], torch.tensor(NOISES).double())
            means[:, row, present], coefficients[:, row, present] = fitted.means, fitted.coefficients
        new = coefficients @ kernel.between(self.known, self.held_out)

        def read(means: Tensor) -> Tensor:
            if ordinal:
                answers = medians(thresholds_of(shares)[None, :, None] - means[..., None]).double()
            else:
                answers = (means + centre + 0.5).floor().clamp(LOWEST, HIGHEST)
            return torch.where(means.isnan(), torch.nan, answers)

        known, held_out = read(means), read(new)
        errors = (known - self.known_answers).abs().nanmean(-1)
        best = errors.min(0).indices if choice == "person" else errors.mean(1).min(0).indices.expand(len(centre))
        at = torch.arange(len(centre))
        return known[best, at], held_out[best, at]

    def kernel_of(self, features: Tensor, linear: bool = False) -> ItemKernel:
        """The kernel of unit features ``(items, parts, width)``; ``linear``: their mean cosine."""
        flat = features.flatten(1) / features.shape[1] ** 0.5
        return ItemKernel(self.inventory.column, flat @ flat.T if linear else exponential_kernel(features))

    def plain_features(self) -> Tensor:
        """Features of the statement itself, ``I worry about things.``, at `DEPTHS`."""
        layers = [max(1, round(depth * self.backbone.layers)) for depth in DEPTHS]
        texts = [f"I {statement_as_worded(item)}." for item in self.inventory.items]
        return unit_features(self.backbone.hidden_states(texts, layers).double())

    def contrasts(self, *names: str, at: Sequence[int] = UPPER) -> ItemKernel:
        """The kernel of these contrasts at these of `DEPTHS`; every text is read once."""
        for name in names:
            if name not in self._features:
                recipe = FeatureRecipe((name,), DEPTHS)
                self._features[name] = contrast_features(self.backbone, self.inventory, recipe)
        return self.kernel_of(torch.cat([self._features[name][:, list(at)] for name in names], dim=1))

    def with_others(self, kernel: ItemKernel) -> tuple[Tensor, Tensor]:
        """Predicted known (leave-one-out) and held-out answers, with everyone else's correlations."""
        known, held_out = torch.full_like(self.known_answers, torch.nan), torch.empty_like(self.truth)
        for index, person in enumerate(self.people):
            others = torch.cat([self.everything[:index], self.everything[index + 1 :]])
            answers = self.protocol.known(person)
            made = predictors.predict_with_others(self.inventory, kernel, answers, others)
            known[index, [self.known.index(number) for number in made.numbers]] = medians(made.own_cuts).double()
            held_out[index] = medians(made.readout.cuts(self.backbone, self.held_out)).double()
        return known, held_out

    def method(self, prior: str, bare: Tensor) -> tuple[Tensor, dict[float, int]]:
        """The method's own answers to the held-out items, pooled with the bare model's, and its weights' counts."""
        aligner = make_aligners(read_option("method", "readout") | {"prior": prior})["readout"]
        aligner.prepare(self.backbone, self.protocol)
        everyone = self.everything.numpy()
        cases = [
            Case(
                person.id,
                self.protocol.known(person),
                self.protocol.selection(person, 0),
                seed=0,
                others=np.delete(everyone, index, axis=0) if prior == "people" else None,
            )
            for index, person in enumerate(self.people)
        ]
        started = time.perf_counter()
        alignments = aligner.align_many(cases)
        print(f"\n{prior}: {1000 * (time.perf_counter() - started) / len(cases):.1f} ms per person")
        print(f"bytes stored: {sorted({alignment.stored_bytes() for alignment in alignments})}")
        items = self.inventory.select(self.held_out)
        rows: list[Tensor] = []
        weights: dict[float, int] = {}
        for alignment in alignments:
            weight = alignment.summary["weight"]
            weights[weight] = weights.get(weight, 0) + 1
            scores = alignment.readout.option_scores(self.backbone, items) if alignment.readout else None
            rows.append(HIGHEST - (scores.combine(bare) if scores else bare).argmax(-1))
        return torch.stack(rows).double(), weights


def difference(name: str, one: np.ndarray, two: np.ndarray) -> None:
    """Print a paired difference with its interval."""
    low, high = mean_interval(one - two) or (float("nan"), float("nan"))
    print(f"{name}: {(one - two).mean():+.3f} [{low:+.3f}, {high:+.3f}]", flush=True)


def main() -> None:
    """Print every row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2_135m", help="a name in conf/model")
    run = Ablation(parser.parse_args().model)
    print("| variant | known | held out | specificity | trait r |\n|---|---|---|---|---|")
    plain = run.plain_features()
    run.row("plain statement at half depth, linear, rounded", *run.alone(run.kernel_of(plain[:, :1], True), False))
    run.row("plain statement, three depths", *run.alone(run.kernel_of(plain[:, list(UPPER)])))
    for names in (("kind",), ("people",), ("word",), ("word", "kind", "people")):
        run.row(f"contrasts {', '.join(names)}", *run.alone(run.contrasts(*names)))
    for index, depth in enumerate(DEPTHS):
        run.row(f"kind, people at depth {depth} alone", *run.alone(run.contrasts("kind", "people", at=(index,))))
    best = run.contrasts("kind", "people")
    linear = ItemKernel(best.column, best.values.log() + 1)
    one = run.row("kind, people, linear kernel", *run.alone(linear))
    two = run.row("kind, people, not ordinal (rounded mean)", *run.alone(best, ordinal=False))
    pooled = run.row("kind, people, noise pooled over people", *run.alone(best, choice="pooled"))
    chosen = run.row("kind, people (the method, alone)", *run.alone(best))
    difference("\nexponential against linear kernel", chosen, one)
    difference("ordinal against rounded", chosen, two)
    difference("noise per person against pooled", chosen, pooled)
    print()
    people = run.row("others' correlations + features", *run.with_others(best))
    nothing = ItemKernel(best.column, torch.zeros_like(best.values))
    difference("features added to others' correlations", people, run.row("without features", *run.with_others(nothing)))
    bare = run.backbone.bare_option_log_probs(None, run.inventory.select(run.held_out))
    run.row("the bare model", None, (HIGHEST - bare.argmax(-1)).double().expand_as(run.truth))
    for prior, prediction in (("none", chosen), ("people", people)):
        answers, weights = run.method(prior, bare)
        difference(f"pooled with the model against alone, prior={prior}", run.row(prior, None, answers), prediction)
        print(f"weights: {dict(sorted(weights.items()))}")


if __name__ == "__main__":
    main()
