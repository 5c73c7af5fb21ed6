"""Texts that share their beginnings against the same texts read one by one."""

import pytest
import torch
from torch.autograd import gradcheck

from baselines.training import tree
from baselines.training.attention import TreePaths, attention_for_trees, causal_attention
from baselines.training.tree import Passage, TreeSize, answer_log_probs, tree_size
from palign_bench.backbone.anatomy import Anatomy
from tests.architectures import tiny_of
from tests.tiny import tiny_model, tiny_tokenizer

PASSAGES = [
    Passage([5, 6, 7, 8, 9], 3),
    Passage([5, 6, 7, 8, 10, 11], 3),
    Passage([5, 6, 20, 21], 2),
    Passage([5, 6, 7, 8, 9], 4),  # the first again, of which another part is the answer
]


def test_a_beginning_is_counted_once() -> None:
    assert tree_size(PASSAGES[:1]) == 5 and tree_size(PASSAGES[:2]) == 7 and tree_size(PASSAGES) == 9


def test_answers_are_as_likely_as_in_texts_of_their_own_and_so_are_the_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two groups of different sizes, with positions to spare; the plain model reads each text alone."""
    model = tiny_model(tiny_tokenizer())
    anatomy, groups = Anatomy(model), [PASSAGES, PASSAGES[1:3]]
    positions: list[int] = []
    model.get_input_embeddings().register_forward_pre_hook(lambda _, inputs: positions.append(inputs[0].numel()))
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0, 1.5, -1.0])
    expected = []
    for passage in (passage for group in groups for passage in group):
        log_probs = model(torch.tensor([passage.ids])).logits[0].log_softmax(-1)
        expected.append(sum(log_probs[at - 1, passage.ids[at]] for at in range(passage.start, len(passage.ids))))
    (torch.stack(expected) * weights).sum().backward()  # type: ignore[arg-type]
    gradients = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    for trees, size, read in ((True, TreeSize(), 18), (True, TreeSize(12, 9), 24), (False, TreeSize(), 36)):
        model.zero_grad()
        positions.clear()
        with attention_for_trees(model):
            monkeypatch.setattr(tree, "why_no_shared_prefix", lambda _, trees=trees: None if trees else "not known")
            found = answer_log_probs(anatomy, groups, size)
            (found * weights).sum().backward()
        torch.testing.assert_close(found, torch.stack(expected), atol=1e-4, rtol=1e-4)  # type: ignore[arg-type]
        for name, each in model.named_parameters():
            torch.testing.assert_close(each.grad, gradients[name], atol=1e-4, rtol=1e-3)
        assert positions == [read]
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("name", ["gemma2", "gpt2", "granite", "llama", "minicpm3", "mistral"])
def test_answers_after_a_soft_prompt_are_as_likely_as_in_a_plain_pass(name: str) -> None:
    """Granite and MiniCPM3 scale their logits, Gemma 2 caps them; trees where attention is plain, else rows."""
    model = tiny_of(name)
    embed = model.get_input_embeddings()
    virtual = torch.randn(3, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    expected = []
    for passage in PASSAGES:
        rows = torch.cat([virtual, embed(torch.tensor(passage.ids))])[None]
        log_probs = model(inputs_embeds=rows, use_cache=False).logits[0, 3:].log_softmax(-1)
        expected.append(sum(log_probs[at - 1, passage.ids[at]] for at in range(passage.start, len(passage.ids))))
    (gradient,) = torch.autograd.grad(torch.stack(expected).sum(), virtual)  # type: ignore[arg-type]
    with attention_for_trees(model):
        found = answer_log_probs(Anatomy(model), [PASSAGES[:3], PASSAGES[3:]], virtual=virtual)
        (ours,) = torch.autograd.grad(found.sum(), virtual)
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-4, rtol=1e-4)  # type: ignore[arg-type]
    torch.testing.assert_close(ours, gradient, atol=1e-4, rtol=1e-3)


def test_spreading_and_collecting_have_the_numerical_gradient() -> None:
    torch.manual_seed(0)
    paths = TreePaths.of([[0, 1, 2], [0, 1, 3, 4], [5, 6]], 9, 5, torch.device("cpu"))  # 7 and 8 are on no path
    states = torch.randn(1, 2, 9, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: paths.spread(x) * torch.arange(5.0)[:, None] * _real(paths), (states,))
    places = torch.randn(3, 2, 5, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: paths.collect(x, 1)[:, :7], (places,))
    spread = paths.spread(states)
    assert torch.equal(spread[1, :, :4], states[0][:, [0, 1, 3, 4]])
    assert torch.equal(paths.collect(spread, 1)[0, :7].transpose(0, 1), states[0][:, :7])


def _real(paths: TreePaths) -> torch.Tensor:
    """Pads have no gradient: nothing real depends on them."""
    return torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 0]])[:, None, :, None]


def test_attention_in_products_is_pytorchs() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 6, 7, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 8)
    half = [each.bfloat16() for each in (query, key, value)]
    expected = causal_attention(*(each.float() for each in half), 0.3)
    torch.testing.assert_close(causal_attention(*half, 0.3).float(), expected, atol=1e-2, rtol=1e-2)
