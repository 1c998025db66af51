"""Loss and gradients of packed rows are transformers' own of each document alone."""

import pytest
import torch

from soaes.data.token_store import IGNORE
from soaes.model import attention
from soaes.model.causal_lm import CausalLM
from tests.helpers.families import FAMILIES, family

LENGTHS = [9, 20, 3, 16]
# what sets an output apart: a bias, a soft cap, two kinds of scale
EVERY_DAY = ["Phi", "Gemma-2", "Cohere", "Granite"]


def documents():
    """(token ids, labels) of documents; some tokens bear no loss."""
    generator = torch.Generator().manual_seed(0)
    for length in LENGTHS:
        ids_T = torch.randint(64, (length,), generator=generator)
        bears_loss_T = torch.rand(length, generator=generator) < 0.7
        bears_loss_T[0] = False  # a document's first token is predicted from nothing
        bears_loss_T[1] = True
        yield ids_T, torch.where(bears_loss_T, ids_T, IGNORE)


def own_loss(model):
    """transformers' loss of each document alone, summed over the tokens that bear it."""
    total = 0.0
    for ids_T, labels_T in documents():
        count = (labels_T != IGNORE).sum()
        output = model(input_ids=ids_T[None], labels=labels_T[None], use_cache=False)
        total += output.loss * count
    return total


def packed_loss(model):
    """Our loss of the same documents in one row."""
    ids, labels = zip(*documents())
    batch = {
        "ids_BT": torch.cat(ids)[None],
        "labels_BT": torch.cat(labels)[None],
        "positions_BT": torch.cat([torch.arange(length) for length in LENGTHS])[None],
    }
    module = CausalLM(model, 1e-3, lambda step, steps: 1.0, (0.9, 0.95), 0.0, 1, 1.0)
    return module.loss_sum(batch)


def gradients(model, loss):
    weights = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    return {name: grad for name, grad in zip(weights, found) if grad is not None}


def assert_equal_to_the_models_own(name):
    model = family(name)
    attention.set_attention(model, "eager")
    own, ours = own_loss(model), packed_loss(model)
    assert ours.item() == pytest.approx(own.item(), rel=1e-5)
    own_gradients, our_gradients = gradients(model, own), gradients(model, ours)
    assert set(own_gradients) == set(our_gradients)
    for weight, gradient in own_gradients.items():
        error = (our_gradients[weight] - gradient).norm()
        assert error <= 1e-4 * gradient.norm() + 1e-6, weight


@pytest.mark.parametrize("name", EVERY_DAY)
def test_loss_and_gradients_are_the_models_own(name):
    assert_equal_to_the_models_own(name)


@pytest.mark.nightly
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "Qwen3-Next"])
def test_loss_and_gradients_are_the_models_own_in_every_family(name):
    assert_equal_to_the_models_own(name)
