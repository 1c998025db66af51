"""Attention inside documents equals a block-diagonal mask at the cost of the documents."""

import copy

import numpy as np
import pytest
import torch

from soaes.model import attention
from tests.helpers.toys import toy

LENGTHS = {  # rows of 96 tokens; a one at a row's end is padding
    "mixed": [[1, 30, 2, 63], [5, 1, 1, 40, 7, 33, 9], [50, 46]],
    "a document that fills its row": [[96], [40, 50, 1, 1, 1, 1, 1, 1], [96]],
    "one row of short ones": [[8] * 12],
    "padding alone": [[1] * 96, [90, 1, 1, 1, 1, 1, 1]],
}


def positions(rows):
    return torch.tensor(
        np.array([np.concatenate([np.arange(length) for length in row]) for row in rows])
    )


def drawn(seed, count):
    """Rows of documents of random lengths."""
    rng = np.random.default_rng(seed)
    cuts = [
        np.sort(rng.choice(np.arange(1, 96), rng.integers(1, 20), replace=False))
        for _ in range(count)
    ]
    return [np.diff([0, *cut, 96]).tolist() for cut in cuts]


def states_and_gradients(model, name, ids_BT, positions_BT, weights_BTD):
    """Final hidden states, and the gradient of their weighted sum by every parameter."""
    model = copy.deepcopy(model)
    attention.set_attention(model, name)
    states = model.model(
        input_ids=ids_BT, position_ids=positions_BT, use_cache=False
    ).last_hidden_state
    grads = torch.autograd.grad(
        (states.float() * weights_BTD).mean(), list(model.model.parameters())
    )
    return states.detach(), torch.cat([grad.flatten() for grad in grads])


@pytest.mark.parametrize(
    "rows", [*LENGTHS.values(), drawn(0, 5), drawn(1, 8)], ids=[*LENGTHS, "drawn", "drawn again"]
)
def test_states_and_gradients_are_those_of_the_block_diagonal_mask(rows):
    generator = torch.Generator().manual_seed(0)
    positions_BT = positions(rows)
    ids_BT = torch.randint(0, 64, positions_BT.shape, generator=generator)
    weights_BTD = torch.randn(*positions_BT.shape, 32, generator=generator)
    mine, masked = (
        states_and_gradients(toy(0), name, ids_BT, positions_BT, weights_BTD)
        for name in ("documents", "sdpa")
    )
    for output, reference in zip(mine, masked):
        assert (output - reference).abs().max() <= 1e-5 * max(1, reference.abs().max())


def test_it_is_as_exact_in_bfloat16_as_the_masked_kernel():
    generator = torch.Generator().manual_seed(0)
    positions_BT = positions(drawn(2, 6))
    ids_BT = torch.randint(0, 64, positions_BT.shape, generator=generator)
    weights_BTD = torch.randn(*positions_BT.shape, 32, generator=generator)
    exact = states_and_gradients(toy(0), "sdpa", ids_BT, positions_BT, weights_BTD)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mine, masked = (
            states_and_gradients(toy(0), name, ids_BT, positions_BT, weights_BTD)
            for name in ("documents", "sdpa")
        )
    for output, reference, exact_output in zip(mine, masked, exact):
        assert (
            (output - exact_output).norm()
            < 1.25 * (reference - exact_output).norm()
            < 0.1 * exact_output.norm()
        )


def test_a_changed_document_leaves_the_others_states_as_they_are():
    positions_BT = positions(LENGTHS["mixed"])
    ids_BT = torch.randint(0, 64, positions_BT.shape, generator=torch.Generator().manual_seed(0))
    changed_BT = ids_BT.clone()
    changed_BT[0, 1:31] = (changed_BT[0, 1:31] + 1) % 64  # the first row's second document
    model = toy(0)
    attention.set_attention(model, "documents")
    with torch.inference_mode():
        before, after = (
            model.model(input_ids=ids, position_ids=positions_BT, use_cache=False).last_hidden_state
            for ids in (ids_BT, changed_BT)
        )
    moved_BT = (before - after).abs().amax(-1) > 1e-6
    assert moved_BT[0, 1:31].all() and moved_BT.sum() == 30


def test_without_positions_a_row_is_one_document():
    ids_BT = torch.randint(0, 64, (3, 70), generator=torch.Generator().manual_seed(0))
    model = toy(0)
    with torch.inference_mode():
        causal = model(ids_BT).logits
        attention.set_attention(model, "documents")
        assert torch.allclose(model(ids_BT, use_cache=False).logits, causal, atol=1e-4)


@pytest.mark.parametrize("rows", [*LENGTHS.values(), drawn(3, 8)], ids=[*LENGTHS, "drawn"])
def test_every_token_has_one_place_and_little_is_filled_up(rows):
    slots = attention.layout(positions(rows))
    tokens = torch.arange(len(slots.slot_N))
    assert torch.equal(slots.token_P[slots.slot_N], tokens)
    assert sum(count * length for count, length in slots.groups) == len(slots.token_P)
    documents = sum(len(row) for row in rows)
    assert sum(count for count, _ in slots.groups) == documents
    assert len(slots.token_P) <= attention.WASTE * len(tokens) + attention.SLACK * documents


def test_what_it_does_not_know_is_refused():
    model = toy(0)
    attention.set_attention(model, "documents")
    with pytest.raises(ValueError, match="or cache; set runtime.execution.attention=sdpa"):
        cache = model(torch.arange(8)[None]).past_key_values
        model(torch.tensor([[9]]), past_key_values=cache)
