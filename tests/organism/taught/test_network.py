"""The taught model's own forward and backward pass against transformers' and autograd's."""

import pytest
import torch

from palign_bench.organism.taught.network import MAPS, Network, Tree
from tests.tiny import tiny_model, tiny_tokenizer

RANK, SCALE = 3, 2.0


@pytest.fixture(scope="module")
def model():
    return tiny_model(tiny_tokenizer())


@pytest.fixture()
def network(model):
    made = Network(model, RANK, SCALE, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in made.b:
            for each in layer:
                each.copy_(0.1 * torch.randn(each.shape, generator=generator))
    made.merge(range(made.layers))
    return made


@pytest.fixture()
def tuned(model, network):
    """The same sums in transformers' own model."""
    plain = tiny_model(tiny_tokenizer())
    with torch.no_grad():
        for layer, module in enumerate(plain.model.layers):
            for which, name in enumerate(MAPS):
                weight = module.get_submodule(name).weight
                weight += SCALE * network.b[layer][which] @ network.a[layer][which]
    return plain


PREFIX = list(range(5, 305))  # more than one block of queries
BRANCHES = [[7, 9, 11, 13], [8, 10], [20, 21, 22]]


def test_every_branch_is_read_as_if_it_alone_followed_the_prefix(network, tuned):
    tree = Tree.of(PREFIX, BRANCHES)
    hidden, kept, _ = network.run(tree, 0, network.layers, keep=(1,))
    for number, branch in enumerate(BRANCHES):
        with torch.no_grad():
            expected = tuned(input_ids=torch.tensor([PREFIX + branch]), output_hidden_states=True)
        places = torch.tensor([tree.place(number, token) for token in range(len(branch))])
        torch.testing.assert_close(
            network.logits(hidden[places]), expected.logits[0, -len(branch) :], atol=2e-4, rtol=1e-4
        )
        torch.testing.assert_close(kept[1][places], expected.hidden_states[1][0, -len(branch) :], atol=2e-4, rtol=1e-4)


def test_a_pass_may_be_taken_up_at_any_layer(network):
    tree = Tree.of(PREFIX, BRANCHES)
    whole, _, _ = network.run(tree, 0, 2)
    below, _, _ = network.run(tree, 0, 1)
    torch.testing.assert_close(network.run(tree, 1, 2, below)[0], whole)


def test_gradients_are_those_of_the_sum(network, tuned):
    tree = Tree.of(PREFIX[:40])
    hidden, _, _ = network.run(tree, 0, 2, trained=(0, 1))
    network.logits(hidden).square().mean().backward()
    tuned.requires_grad_(True)
    tuned(input_ids=tree.ids[None]).logits.square().mean().backward()
    for layer, module in enumerate(tuned.model.layers):
        for which, name in enumerate(MAPS):
            whole = SCALE * module.get_submodule(name).weight.grad
            a, b = network.a[layer][which], network.b[layer][which]
            torch.testing.assert_close(a.grad, b.detach().t() @ whole, atol=1e-5, rtol=1e-3)
            torch.testing.assert_close(b.grad, whole @ a.detach().t(), atol=1e-5, rtol=1e-3)


def test_layers_that_are_not_trained_get_no_gradient(network):
    hidden, _, _ = network.run(Tree.of(PREFIX[:40]), 0, 2, trained=(1,))
    hidden.square().mean().backward()
    assert all(each.grad is None for each in network.differences([0]))
    assert all(each.grad is not None for each in network.differences([1]))


def test_watched_attention_is_transformers_own(network, tuned):
    tuned.set_attn_implementation("eager")
    tree = Tree.of(PREFIX[:40], BRANCHES)
    places = torch.tensor([12, 39, tree.place(1, 1)])
    _, _, attentions = network.run(tree, 0, 2, watch={1: places})
    with torch.no_grad():
        of_prefix = tuned(input_ids=torch.tensor([PREFIX[:40]]), output_attentions=True).attentions[1][0]
        of_branch = tuned(input_ids=torch.tensor([PREFIX[:40] + BRANCHES[1]]), output_attentions=True).attentions[1][0]
    found = attentions[1].exp()
    torch.testing.assert_close(found[:, :2, :40], of_prefix[:, [12, 39]], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[:, 2, :40], of_branch[:, -1, :40], atol=1e-5, rtol=1e-4)
    own = torch.tensor([tree.place(1, token) for token in range(2)])
    torch.testing.assert_close(found[:, 2, own], of_branch[:, -1, 40:], atol=1e-5, rtol=1e-4)
    assert float(found[:, 2].sum(dim=-1).sub(1).abs().max()) < 1e-5
