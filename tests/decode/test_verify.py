"""Warping, the rules at single blocks, and rates; test_exactness proves the rules exact."""

import itertools

import pytest
import torch

from soaes.decode import settings
from soaes.decode.sampling import greedy, nucleus, sample, warp
from soaes.decode.verify import (
    BLOCK,
    RULES,
    block,
    rejection,
    residual,
    verify_block,
    verify_greedy,
)
from soaes.metrics import acceptance


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_position_is_tested_also_after_a_rejection(rule):
    p_rows = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]])
    q_rows = torch.tensor([[0, 1.0, 0], [0, 1, 0], [0, 0, 1]])
    verdict = verify_block(rule, p_rows, q_rows, [1, 1, 2], torch.Generator())
    # block's tests are of the whole block up to a token: after the first mismatch nothing is kept
    assert verdict == (0, 0, [False, rule is not BLOCK, rule is not BLOCK], 2.0)
    assert verify_greedy([0, 1, 2, 0], [1, 1, 2]) == (0, 0, [False, True, True], 2.0)


def test_greedy_match_keeps_the_bonus():
    assert verify_greedy([4, 5, 6], [4, 5])[:2] == (2, 6)
    assert verify_greedy([4], [])[:2] == (0, 4)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_an_empty_block_is_a_draw_from_the_target(rule):
    verdict = verify_block(rule, torch.tensor([[0.0, 1.0, 0.0]]), None, [], torch.Generator())
    assert verdict == (0, 1, [], 0.0)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_rule_is_sound_where_p_and_q_differ_by_rounding(rule):
    p_rows = torch.randn(4, 500, generator=torch.Generator().manual_seed(0)).softmax(-1)
    law = rule.test(p_rows, p_rows[:3] * (1 + 1e-7), [3, 4, 5])
    assert all(0 <= chance <= 1 for chance in law.accept_probs)
    assert all(abs(float(law.next_probs(accepted).sum()) - 1) < 1e-5 for accepted in range(4))


def test_block_takes_the_last_pass_and_rejection_the_first_run():
    """p/q = .5 then 2: rejection keeps two tokens with .5, block with min(.5 * 2, 1) = 1."""
    p_rows, q_rows = (
        torch.tensor([[0.5, 0.5], [1, 0], [0.5, 0.5]]),
        torch.tensor([[1, 0], [0.5, 0.5]]),
    )
    assert (
        rejection(p_rows, q_rows, [0, 0]).accept_probs == [0.5, 1]
        and block(p_rows, q_rows, [0, 0]).accept_probs[1] == 1
    )
    assert verify_block(BLOCK, p_rows, q_rows, [0, 0], torch.Generator()).accepted == 2


def test_residual_of_equal_distributions_is_the_target():
    p = torch.tensor([0.2, 0.3, 0.5])
    assert torch.equal(residual(p, p), p)


def test_nucleus_is_the_smallest_set_that_reaches_top_p():
    p = torch.tensor([0.1, 0.4, 0.2, 0.3])
    for top_p, nucleus_ids in (
        (0.3, [1]),
        (0.5, [1, 3]),
        (0.75, [1, 3, 2]),
        (1 - 1e-6, [1, 3, 2, 0]),
    ):
        expected = torch.zeros(4).scatter_(
            0, torch.tensor(nucleus_ids), p[nucleus_ids] / p[nucleus_ids].sum()
        )
        assert torch.allclose(nucleus(p, top_p), expected), top_p


def test_nucleus_of_a_flat_vocabulary_reaches_beyond_the_first_tokens():
    rows = torch.stack([torch.full((1000,), 1e-3), torch.arange(1000.0).softmax(0)])
    sizes = (nucleus(rows, 0.7) > 0).sum(-1)
    assert abs(sizes[0] - 700) <= 1 and sizes[1] == 2


def test_warp_is_softmax_at_a_temperature_and_greedy_at_zero():
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(warp(logits, 0.5, 1.0), (logits * 2).softmax(-1))
    assert (
        warp(logits, 0, 1.0).argmax(-1).tolist() == greedy(logits)
        and warp(logits, 0, 1.0).sum() == 4
    )


def test_sample_never_draws_a_token_of_probability_zero():
    p, generator = torch.tensor([0.0, 0.3, 0.0, 0.7, 0.0]), torch.Generator().manual_seed(0)
    draws = [sample(p, generator) for _ in range(4000)]
    assert set(draws) == {1, 3} and abs(draws.count(1) - 1200) < 4.5 * (4000 * 0.21) ** 0.5


@pytest.mark.parametrize(
    "temperature, top_p", [(1.0, 0.0), (1.0, 1.2), (-1.0, 1.0), (1.0, float("nan"))]
)
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
        assert acceptance.expected_tokens(rate, n) == pytest.approx(
            (1 - rate ** (n + 1)) / (1 - rate)
        )
    assert acceptance.expected_tokens(1.0, 3) == 4


def test_predicted_speedup_at_the_papers_parameter_ratio():
    assert acceptance.predicted_speedup(0.7578, 3, 0.105, 1.0) == pytest.approx(2.11, abs=0.01)


def test_rates_read_the_same_counts_in_two_ways():
    # two blocks of n = 3: pass fail pass, and pass pass fail
    # 4 of 6 tests passed, 1 + 2 tokens emitted
    counts = {
        "is_cut": True,
        "new_tokens": 5,
        "steps": 2,
        "accepted": 3,
        "drafted": 6,
        "overlap": 4.5,
        "tests_per_position": [2, 2, 2],
        "accepts_per_position": [2, 1, 1],
    }
    metrics = acceptance.acceptance_metrics([counts])
    assert metrics["acceptance_rate_per_position"] == pytest.approx(400 / 6)
    assert metrics["draft_acceptance_rate"] == 50
    assert metrics["overlap"] == 75 and metrics["mean_acceptance_length"] == 2.5
    nothing = counts | {"drafted": 0, "tests_per_position": [], "accepts_per_position": []}
    metrics = acceptance.acceptance_metrics([nothing | {"overlap": 0.0}])
    assert metrics["acceptance_rate_per_position"] is metrics["overlap"] is None


def test_the_rules_that_settings_name_are_the_rules_that_there_are():
    assert tuple(RULES) == settings.RULES
    with pytest.raises(ValueError, match="rule=blocks: must be one of rejection, block"):
        settings.SpeculativeSettings(3, rule="blocks")
