"""Texts with common beginnings in one pass: every beginning is computed once, and no position is a pad.

The texts of a batch begin alike: with the chat's system turn, and two answers to one item with the whole question. As
attention is causal, texts form a tree of tokens, and everything but attention is computed once per position of it.
Log-probabilities and gradients are those of the padded texts up to rounding; dropout draws once per position.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from baselines.training.attention import TreePaths
from palign_bench.backbone.anatomy import Anatomy
from palign_bench.backbone.engines.attention import why_no_shared_prefix
from palign_bench.costs.clock import charge


@dataclass(frozen=True)
class Passage:
    """Token ids, of which those from ``start`` on are the answer."""

    ids: list[int]
    start: int


class TokenTree:
    """One group's texts as a tree: token and depth (place in its text) of every position."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.depths: list[int] = []
        self._next: dict[tuple[int, int], int] = {}

    def path(self, tokens: Sequence[int]) -> list[int]:
        """The positions of a text, which is put into the tree as far as it is not there."""
        found, at = [], -1
        for depth, token in enumerate(tokens):
            following = self._next.setdefault((at, token), len(self.ids))
            if following == len(self.ids):
                self.ids.append(token)
                self.depths.append(depth)
            found.append(at := following)
        return found


def tree_size(passages: Sequence[Passage]) -> int:
    """Positions of these texts' tree."""
    tree = TokenTree()
    for each in passages:
        tree.path(each.ids)
    return len(tree.ids)


@dataclass(frozen=True)
class TreeSize:
    """The shape of a pass. ``positions`` of one group's tree and ``length`` of its longest text; 0: as needed."""

    positions: int = 0
    length: int = 0


@dataclass(frozen=True)
class TreeReading:
    """Hidden states of one pass ``(positions, width)``, and where in them every text's tokens stand."""

    anatomy: Anatomy
    hidden: Tensor
    passages: Sequence[Passage]
    paths: Sequence[list[int]]

    @property
    def lengths(self) -> list[int]:
        """Tokens of every text's answer."""
        return [len(each.ids) - each.start for each in self.passages]

    def log_probs(self, temperature: float = 1.0) -> Tensor:
        """Float32 log-probabilities of the answers' tokens, text by text; logits once per position that has one."""
        rows: dict[int, int] = {}  # position -> row of the logits
        predicting, targets = [], []
        for passage, path in zip(self.passages, self.paths, strict=True):
            for at in range(passage.start, len(passage.ids)):
                predicting.append(rows.setdefault(path[at - 1], len(rows)))
                targets.append(passage.ids[at])
        device = self.hidden.device
        logits = self.anatomy.logits(self.hidden[torch.tensor(list(rows), device=device)]).float()
        log_probs = (logits if temperature == 1 else logits / temperature).log_softmax(-1)
        return log_probs[torch.tensor(predicting, device=device), torch.tensor(targets, device=device)]


def read(
    anatomy: Anatomy,
    groups: Sequence[Sequence[Passage]],
    size: TreeSize = TreeSize(),
    virtual: Tensor | None = None,
    trees: bool = True,
) -> TreeReading:
    """One pass over texts, group by group; ``virtual``: a soft prompt ``(n, width)`` before each.

    A group is a row of the batch, whose texts share their beginnings where the model's attention is known to be plain
    (`tree_attention` must be on). Otherwise, or without ``trees``, every text is a row, right-padded and causal, so
    that no mask is needed.
    """
    trees = trees and why_no_shared_prefix(anatomy) is None
    passages = [each for group in groups for each in group]
    found = [TokenTree() for _ in (groups if trees else passages)]
    grouped = groups if trees else [[each] for each in passages]
    paths = [[tree.path(each.ids) for each in group] for tree, group in zip(found, grouped, strict=True)]
    width = max(size.positions if trees else size.length, *(len(tree.ids) for tree in found))
    device, before = anatomy.model.device, 0 if virtual is None else len(virtual)
    ids, depths = torch.zeros(len(found), width, dtype=torch.long), torch.zeros(len(found), width, dtype=torch.long)
    for row, tree in enumerate(found):
        ids[row, : len(tree.ids)] = torch.tensor(tree.ids)
        depths[row, : len(tree.ids)] = torch.tensor(tree.depths)
    starts = range(0, len(found) * (before + width), before + width)
    flat = [[start + before + at for at in path] for start, each in zip(starts, paths, strict=True) for path in each]
    inputs: dict[str, Any] = {"input_ids": ids.to(device), "use_cache": False}
    if virtual is not None:
        embedded = anatomy.model.get_input_embeddings()(inputs.pop("input_ids"))
        charge(training_tokens=before * len(found))  # beside the texts', which their embedding counts
        inputs["inputs_embeds"] = torch.cat([virtual.to(embedded).expand(len(found), -1, -1), embedded], dim=1)
    if trees:
        depths = torch.cat([torch.arange(before).expand(len(found), -1), before + depths], dim=1)
        firsts = [[*range(start, start + before)] for start, each in zip(starts, paths, strict=True) for _ in each]
        whole = [first + path for first, path in zip(firsts, flat, strict=True)]
        inputs |= {
            "position_ids": depths.to(device),
            "tree": TreePaths.of(whole, len(found) * (before + width), size.length, device),
        }
    return TreeReading(anatomy, anatomy.decoder(**inputs).last_hidden_state.flatten(0, 1), passages, flat)


def answer_log_probs(
    anatomy: Anatomy,
    groups: Sequence[Sequence[Passage]],
    size: TreeSize = TreeSize(),
    virtual: Tensor | None = None,
) -> Tensor:
    """Float32 log-probability of each passage's answer, ``(texts,)``, group by group (`read`)."""
    reading = read(anatomy, groups, size, virtual)
    return text_sums(reading.log_probs(), reading.lengths)


def text_sums(tokens: Tensor, lengths: Sequence[int]) -> Tensor:
    """The sum of each text's tokens, ``(texts,)``, from all texts' ``(tokens,)``."""
    texts = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)).to(tokens.device)
    return torch.zeros(len(lengths), device=tokens.device).index_add(0, texts, tokens)
