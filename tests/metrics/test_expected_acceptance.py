"""Expected acceptance of a text is the mean over all patterns, and what the decoder does."""

import itertools

import numpy as np
import pytest
import torch

from soaes.decode.sampling import warp
from soaes.decode.speculative import Speculative
from soaes.metrics.expected_acceptance import expected, speedup
from tests.helpers.laws import NEVER, Table

# T tokens of one text, V vocabulary


def random(count, seed=0):
    return np.random.default_rng(seed).random(count)


def blocks(passed_T, n, max_new_tokens):
    """(steps, accepted, reached, drafted), block by block as the decoder writes.

    passed_T: whether token t would be accepted if it were tested.
    """
    written = steps = accepted = reached = drafted = 0
    while written < len(passed_T):
        room = min(n, max_new_tokens - written - 1)
        tried = passed_T[written : written + room]
        run = tried.index(False) if False in tried else len(tried)
        ended = written + run == len(passed_T)  # an accepted eos
        steps, accepted, reached = steps + 1, accepted + run, reached + run + (run < len(tried))
        drafted += run if ended else room
        written += run + (not ended)
    return steps, accepted, reached, drafted


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("length, more", [(1, 0), (1, 3), (4, 0), (6, 1), (6, 2), (7, 9)])
def test_expectations_are_the_mean_over_all_patterns_of_acceptance(n, length, more):
    r_T, total = random(length, seed=n), np.zeros(4)
    for passed_T in itertools.product([False, True], repeat=length):
        total += np.prod(np.where(passed_T, r_T, 1 - r_T)) * np.array(
            blocks(passed_T, n, length + more)
        )
    assert expected(r_T, n, length + more) == pytest.approx(tuple(total), abs=1e-12)


@pytest.mark.parametrize("n", [1, 3, 8])
def test_a_twin_gives_n_more_tokens_a_step_and_a_stranger_none(n):
    twin, stranger = expected(np.ones(8 * (n + 1)), n, 8 * (n + 1)), expected(np.zeros(40), n, 40)
    assert twin == (8, 8 * n, 8 * n, 8 * n)
    assert stranger.steps == 40 and stranger.accepted == 0 and stranger.reached == 39


def test_a_better_draft_or_a_longer_block_never_takes_more_steps():
    for seed in range(20):
        r_T = random(12, seed)
        better_T = r_T + (1 - r_T) * random(12, seed + 100)
        steps = [expected(r_T, n, 15).steps for n in range(1, 9)]
        assert all(after <= before + 1e-12 for before, after in itertools.pairwise(steps))
        assert all(expected(better_T, n, 15).steps <= steps[n - 1] for n in range(1, 9))


def test_speedup_is_tokens_over_their_time():
    assert speedup(
        tokens=40, steps=10, drafted=30, draft_cost=0.1, verify_cost=1.2
    ) == pytest.approx(4 / (3 * 0.1 + 1.2))


def texts(target, draft, top_p, eos, max_new_tokens, context=(1, 2, 1), chance=1.0, r=()):
    """Every text that the target may write, with its probability and its r_T."""
    if len(r) == max_new_tokens or (r and context[-1] == eos):
        yield chance, np.array(r)
        return
    p_V, q_V = (warp(table.row(list(context)), 1.0, top_p).tolist() for table in (target, draft))
    for token, p in enumerate(p_V):
        if p > 0:
            yield from texts(
                target,
                draft,
                top_p,
                eos,
                max_new_tokens,
                (*context, token),
                chance * p,
                (*r, min(1, q_V[token] / p)),
            )


@pytest.mark.parametrize(
    "n, top_p, eos, max_new_tokens",
    [(1, 1.0, NEVER, 4), (2, 0.8, 4, 6), (3, 0.8, 3, 6), (4, 0.8, NEVER, 6)],
)
def test_expected_counts_are_those_of_the_decoder_on_average(
    n, top_p, eos, max_new_tokens, draws=500
):
    target, draft, generator = Table(1, 5), Table(2, 5), torch.Generator().manual_seed(0)
    expectations = [
        (chance, expected(r_T, n, max_new_tokens), len(r_T))
        for chance, r_T in texts(target, draft, top_p, eos, max_new_tokens)
    ]
    steps, accepted, reached, drafted = (
        sum(chance * counts[index] for chance, counts, _ in expectations) for index in range(4)
    )
    decoder = Speculative(target, draft, n, 1.0, top_p, eos)
    generations = [decoder.generate([1, 2, 1], max_new_tokens, generator) for _ in range(draws)]
    assert near([generation.steps for generation in generations], steps) and near(
        [generation.accepted for generation in generations], accepted
    )
    assert near(
        [len(generation.tokens) for generation in generations],
        sum(chance * length for chance, _, length in expectations),
    )
    drafted_counts = [generation.drafted for generation in generations]
    assert (
        reached < np.mean(drafted_counts) < drafted
        if eos != NEVER
        else near(drafted_counts, drafted)
    )  # without an eos no draft ends early


def near(counts, value):
    """Whether the mean of the counts lies within four standard errors of the value."""
    return abs(np.mean(counts) - value) < 4 * np.std(counts) / len(counts) ** 0.5 + 1e-9
