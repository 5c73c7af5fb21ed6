"""Texts with common beginnings in one pass: every beginning is computed once, and no position is a pad.

The texts of a batch begin alike: with the chat's system turn, and two answers to one item with the whole question. As
attention is causal, texts form a tree of tokens, and everything but attention is computed once per position of it.
Log-probabilities and gradients are those of the padded texts up to rounding; dropout draws once per position.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.training.attention import TreePaths
from palign_bench.backbone.anatomy import Anatomy
from palign_bench.backbone.engines.attention import why_no_shared_prefix


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


def answer_log_probs(anatomy: Anatomy, groups: Sequence[Sequence[Passage]], size: TreeSize = TreeSize()) -> Tensor:
    """Float32 log-probability of each passage's answer, ``(texts,)``, group by group.

    A group is a row of the batch, whose texts share their beginnings where the model's attention is known to be plain
    (`tree_attention` must be on). Otherwise every text is a row, right-padded and causal, so that no mask is needed.
    The vocabulary's logits are computed for the answers alone.
    """
    trees = why_no_shared_prefix(anatomy) is None
    passages = [each for group in groups for each in group]
    found = [TokenTree() for _ in (groups if trees else passages)]
    grouped = groups if trees else [[each] for each in passages]
    paths = [[tree.path(each.ids) for each in group] for tree, group in zip(found, grouped, strict=True)]
    width = max(size.positions if trees else size.length, *(len(tree.ids) for tree in found))
    device = anatomy.model.device
    ids, depths = torch.zeros(len(found), width, dtype=torch.long), torch.zeros(len(found), width, dtype=torch.long)
    for row, tree in enumerate(found):
        ids[row, : len(tree.ids)] = torch.tensor(tree.ids)
        depths[row, : len(tree.ids)] = torch.tensor(tree.depths)
    flat = [[row * width + at for at in path] for row, each in enumerate(paths) for path in each]
    inputs = {"input_ids": ids.to(device), "use_cache": False}
    if trees:
        inputs |= {
            "position_ids": depths.to(device),
            "tree": TreePaths.of(flat, len(found) * width, size.length, device),
        }
    hidden = anatomy.decoder(**inputs).last_hidden_state.flatten(0, 1)
    return _log_probs(anatomy, hidden, passages, flat)


def _log_probs(anatomy: Anatomy, hidden: Tensor, passages: Sequence[Passage], paths: Sequence[list[int]]) -> Tensor:
    """Of each text's answer, from the hidden states ``(positions, width)``; logits once per position that has one."""
    rows: dict[int, int] = {}  # position -> row of the logits
    predicting, targets, texts = [], [], []
    for number, (passage, path) in enumerate(zip(passages, paths, strict=True)):
        for at in range(passage.start, len(passage.ids)):
            predicting.append(rows.setdefault(path[at - 1], len(rows)))
            targets.append(passage.ids[at])
            texts.append(number)
    device = hidden.device
    log_probs = anatomy.logits(hidden[torch.tensor(list(rows), device=device)]).float().log_softmax(-1)
    chosen = log_probs[torch.tensor(predicting, device=device), torch.tensor(targets, device=device)]
    sums = torch.zeros(len(passages), device=device)
    return sums.index_add(0, torch.tensor(texts, device=device), chosen)
