"""The laws of warping and of the rejection rule, enumerated over the code's own functions, in float64."""

import itertools
from functools import partial

import pytest
import torch

from soaes.decode.distributions import greedy, nucleus, sample, warp
from soaes.decode.verify import acceptance_probabilities, greedy_match, next_distribution, rejection, residual
from soaes.metrics import acceptance

V = 3
KINDS = ["random", "equal", "disjoint", "zeros", "one_hot", "near", "skewed"]


def emitted_law(p, q, n, ratio=acceptance_probabilities, following=next_distribution, claimed=None):
    """Joint law of the first n + 1 tokens: one block, then the target alone. p, q: prefix -> distribution_V.

    claimed: the q that the rule is told, where it is not the q that drafts.
    """
    law, claimed = dict.fromkeys(itertools.product(range(V), repeat=n + 1), 0.0), claimed or q
    for drafted in itertools.product(range(V), repeat=n):
        chance = _product(q, drafted)
        if chance == 0:
            continue
        p_rows = torch.stack([p(drafted[:i]) for i in range(n + 1)])
        q_rows = torch.stack([claimed(drafted[:i]) for i in range(n)])
        accept = ratio(p_rows[:n], q_rows)[range(n), drafted].tolist()
        for accepted in range(n + 1):
            stop = 1.0 if accepted == n else 1 - accept[accepted]
            for position in range(accepted):
                stop *= accept[position]
            if stop == 0:
                continue
            tokens = following(p_rows, q_rows, accepted).tolist()
            for token, rest in itertools.product(range(V), itertools.product(range(V), repeat=n - accepted)):
                text = (*drafted[:accepted], token, *rest)
                law[text] += chance * stop * tokens[token] * _product(p, text, accepted + 1)
    return law


def _product(table, text, start=0):
    chance = 1.0
    for position in range(start, len(text)):
        chance *= float(table(text[:position])[text[position]])
    return chance


def largest_error(p, q, n, **bug):
    return max(abs(chance - _product(p, text)) for text, chance in emitted_law(p, q, n, **bug).items())


def tables(kind, seed, n=3):
    """Two random tables of conditional distributions over every prefix of up to n tokens."""
    generator = torch.Generator().manual_seed(seed)
    p, q = {}, {}
    for prefix in itertools.chain(*(itertools.product(range(V), repeat=size) for size in range(n + 1))):
        p[prefix], q[prefix] = _pair(kind, generator)
    return p.__getitem__, q.__getitem__


def _pair(kind, generator):
    p, q = torch.rand(2, V, generator=generator, dtype=torch.float64)
    first = torch.arange(V) == torch.randint(V, (), generator=generator)
    if kind == "equal":
        q = p.clone()
    if kind == "near":
        q = p * (1 + 1e-9 * q)
    if kind == "skewed":
        p, q = p**8, q**8
    if kind == "disjoint":
        p, q = p * first, q * ~first
    if kind == "zeros":
        p, q = p * ~first, q * ~first.roll(1)
    if kind == "one_hot":
        q = (torch.arange(V) == torch.randint(V, (), generator=generator)).double()
    return p / p.sum(), q / q.sum()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_rejection_has_the_targets_law(kind, n):
    for seed in range(6 if n == 3 else 16):
        assert largest_error(*tables(kind, seed), n) < 1e-12


def test_rejection_has_the_law_of_the_warped_target():
    for top_p in (0.4, 0.7, 0.95):
        p, q = tables("random", 7)
        assert largest_error(_cut(p, top_p), _cut(q, top_p), 3) < 1e-12


def _cut(table, top_p):
    return lambda prefix: nucleus(table(prefix), top_p)


def test_the_papers_equations_read_literally_are_biased():
    """Decision 1: accept on a match of two samples, then the residual: (.5, .5) comes out as (.45, .55)."""
    p, q = torch.tensor([0.5, 0.5], dtype=torch.float64), torch.tensor([0.9, 0.1], dtype=torch.float64)
    literal = q * p + (1 - (q * p).sum()) * residual(p, q)
    assert torch.allclose(literal, torch.tensor([0.45, 0.55], dtype=torch.float64))


def _bonus_from_the_draft(q_after, p_rows, q_rows, accepted):
    return q_after if accepted == len(q_rows) else next_distribution(p_rows, q_rows, accepted)


BUGS = {
    "ratio_too_large": {"ratio": lambda p, q: (acceptance_probabilities(p, q) * 1.05).clamp(max=1)},
    "resampled_from_p": {"following": lambda p_rows, q_rows, accepted: p_rows[accepted]},
    "bonus_from_the_draft": {"following": partial(_bonus_from_the_draft, torch.tensor([0.6, 0.3, 0.1]).double())},
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_breaks_the_law(bug):
    assert largest_error(*tables("random", 3), 2, **BUGS[bug]) > 1e-3


def test_top_p_on_one_side_breaks_the_law():
    p, q = tables("random", 3)
    assert largest_error(_cut(p, 0.7), _cut(q, 0.7), 2) < 1e-12
    assert largest_error(_cut(p, 0.7), _cut(q, 0.7), 2, claimed=q) > 1e-3


def test_rejection_draws_what_the_enumeration_says():
    p, q = tables("random", 11)
    generator, draws = torch.Generator().manual_seed(0), 20_000
    counts = dict.fromkeys(itertools.product(range(V), repeat=2), 0)
    for _ in range(draws):
        drafted = [sample(q(()), generator)]
        p_rows = torch.stack([p(()), p(tuple(drafted))])
        verdict = rejection(p_rows, q(())[None], drafted, generator)
        text = (*drafted[: verdict.accepted], verdict.token)
        counts[text if len(text) == 2 else (*text, sample(p(text), generator))] += 1
    for text, count in counts.items():
        chance = _product(p, text)
        assert abs(count - draws * chance) < 4.5 * (draws * chance * (1 - chance)) ** 0.5


def test_every_position_is_tested_also_after_a_rejection():
    p_rows = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]])
    q_rows = torch.tensor([[0, 1.0, 0], [0, 1, 0], [0, 0, 1]])
    verdict = rejection(p_rows, q_rows, [1, 1, 2], torch.Generator())
    assert verdict == (0, 0, [False, True, True], 2.0)
    assert greedy_match([0, 1, 2, 0], [1, 1, 2]) == verdict


def test_greedy_match_keeps_the_bonus():
    assert greedy_match([4, 5, 6], [4, 5])[:2] == (2, 6)
    assert greedy_match([4], [])[:2] == (0, 4)


def test_an_empty_block_is_a_draw_from_the_target():
    p_rows = torch.tensor([[0.0, 1.0, 0.0]])
    assert rejection(p_rows, p_rows[:0], [], torch.Generator()) == (0, 1, [], 0.0)


def test_residual_of_equal_distributions_is_the_target():
    p = torch.tensor([0.2, 0.3, 0.5])
    assert torch.equal(residual(p, p), p)


def test_nucleus_is_the_smallest_set_that_reaches_top_p():
    p = torch.tensor([0.1, 0.4, 0.2, 0.3])
    for top_p, kept in ((0.3, [1]), (0.5, [1, 3]), (0.75, [1, 3, 2]), (1 - 1e-6, [1, 3, 2, 0])):
        expected = torch.zeros(4).scatter_(0, torch.tensor(kept), p[kept] / p[kept].sum())
        assert torch.allclose(nucleus(p, top_p), expected), top_p


def test_nucleus_of_a_flat_vocabulary_reaches_beyond_the_first_tokens():
    rows = torch.stack([torch.full((1000,), 1e-3), torch.arange(1000.0).softmax(0)])
    kept = (nucleus(rows, 0.7) > 0).sum(-1)
    assert abs(kept[0] - 700) <= 1 and kept[1] == 2


def test_warp_is_softmax_at_a_temperature_and_greedy_at_zero():
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(warp(logits, 0.5, 1.0), (logits * 2).softmax(-1))
    assert warp(logits, 0, 1.0).argmax(-1).tolist() == greedy(logits) and warp(logits, 0, 1.0).sum() == 4


def test_sample_never_draws_a_token_of_probability_zero():
    p, generator = torch.tensor([0.0, 0.3, 0.0, 0.7, 0.0]), torch.Generator().manual_seed(0)
    draws = [sample(p, generator) for _ in range(4000)]
    assert set(draws) == {1, 3} and abs(draws.count(1) - 1200) < 4.5 * (4000 * 0.21) ** 0.5


@pytest.mark.parametrize("temperature, top_p", [(1.0, 0.0), (1.0, 1.2), (-1.0, 1.0), (1.0, float("nan"))])
def test_warp_refuses_what_is_out_of_range(temperature, top_p):
    with pytest.raises(ValueError, match="0"):
        warp(torch.zeros(3), temperature, top_p)


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_nan_logits_are_an_error(temperature):
    logits = torch.tensor([[0.0, 1.0], [float("nan"), 0.0]])
    with pytest.raises(ValueError, match="NaN"):
        warp(logits, temperature, 0.9)
    with pytest.raises(ValueError, match="NaN"):
        greedy(logits)


def test_logits_of_minus_infinity_are_tokens_of_probability_zero():
    assert warp(torch.tensor([0.0, float("-inf")]), 1.0, 0.9).tolist() == [1, 0]


def test_expected_tokens_is_the_closed_form_and_holds_at_one():
    for rate, n in itertools.product((0.0, 0.3, 0.7578), (1, 3, 5)):
        assert acceptance.expected_tokens(rate, n) == pytest.approx((1 - rate ** (n + 1)) / (1 - rate))
    assert acceptance.expected_tokens(1.0, 3) == 4


def test_predicted_speedup_at_the_papers_parameter_ratio():
    assert acceptance.predicted_speedup(0.7578, 3, 0.105, 1.0) == pytest.approx(2.11, abs=0.01)


def test_rates_read_the_same_counts_in_two_ways():
    # two blocks of n = 3: pass fail pass, and pass pass fail: 4 of 6 tests passed, 1 + 2 tokens emitted
    assert acceptance.per_position_rate([2, 1, 1], [2, 2, 2]) == pytest.approx(400 / 6)
    assert acceptance.accepted_over_drafted(3, 6) == 50
    assert acceptance.per_position_rate([], []) is None and acceptance.mean_overlap(0.0, 0) is None
    assert acceptance.mean_overlap(4.5, 6) == 75 and acceptance.tokens_per_step(5, 2) == 2.5
