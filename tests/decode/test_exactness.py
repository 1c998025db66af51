"""Exactness: the emitted text has the target's distribution.

By enumeration of the rules' acceptance tests, and by chi-square through the whole decoders.

The chi-square tests, of the joint distribution of the first n + 2 tokens, share an error rate
(laws.FAMILY): over seeds, which are fixed here, a correct program would fail any of them with at
most this chance.
"""

import itertools

import pytest
import torch

from soaes.decode.adaptive import BlockCosts
from soaes.decode.sampling import nucleus
from soaes.decode.verify import BLOCK, PAPER_LITERAL, REJECTION, TOKEN_MATCH
from tests.helpers.laws import (
    DRAWS,
    EXACT,
    LEVEL,
    MANY_DRAWS,
    NEVER,
    blocks,
    error,
    p_value,
    pairs,
    prompt_lookup,
    real_twins,
    speculative,
    tokens_a_block,
    twins,
    wasted,
)


@pytest.mark.parametrize("rule", EXACT.values(), ids=EXACT)
def test_a_rules_block_has_the_targets_law(rule):
    assert max(error(rule.test, *pair) for pair in pairs()) < 1e-12


def test_the_papers_rule_as_printed_is_biased():
    assert sum(error(PAPER_LITERAL.test, *pair) > 1e-3 for pair in pairs(100)) > 50
    p, q = torch.tensor([[0.5, 0.5], [0.9, 0.1]], dtype=torch.float64)
    emitted = sum(
        chance * _first(drafted, accepted, following)
        for chance, drafted, accepted, following in blocks(
            PAPER_LITERAL.test, (p, p.expand(2, 2)), (q,), 1
        )
    )
    assert torch.allclose(emitted, torch.tensor([0.45, 0.55], dtype=torch.float64), atol=1e-12)


def _first(drafted, accepted, following):
    return torch.eye(len(following), dtype=following.dtype)[drafted[0]] if accepted else following


def test_block_never_accepts_less_than_rejection_nor_match_more():
    ratios = []
    for pair in pairs():
        by_token_match, by_rejection, by_block = (
            tokens_a_block(rule, *pair) for rule in (TOKEN_MATCH, REJECTION, BLOCK)
        )
        assert by_token_match <= by_rejection + 1e-12 and by_rejection <= by_block + 1e-12
        ratios.append(by_block / by_rejection)
    assert (
        1.005 < sum(ratios) / len(ratios) < max(ratios)
    )  # with n = 1 and equal or disjoint pairs, where they are one rule


@pytest.mark.parametrize("rule", EXACT.values(), ids=EXACT)
@pytest.mark.parametrize("top_p", [0.4, 0.7, 0.95])
def test_top_p_goes_on_both_sides(rule, top_p):
    for p, q, n in itertools.islice(pairs(200), 1, None, 7):  # skewed
        p, cut = ([nucleus(rows, top_p) for rows in table] for table in (p, q))
        assert error(rule.test, p, cut, n) < 1e-12


DRAFT, LOOKUP = (
    BlockCosts(0.05, [1.0, 1.15, 1.17, 1.19]),
    BlockCosts(0.3, [1.0, 1.2, 1.3, 1.35]),
)  # with each, n of 0 to 3 all occur
QUICK = {
    "draft 3": lambda rule: (speculative(3, rule), 5, NEVER),
    "draft 2, eos": lambda rule: (speculative(2, rule, eos=0), 4, 0),
    "draft adaptive": lambda rule: (speculative(3, rule, adaptive=DRAFT), 5, NEVER),
    "lookup 2": lambda rule: (prompt_lookup(2, rule), 4, NEVER),
    "lookup adaptive": lambda rule: (prompt_lookup(3, rule, adaptive=LOOKUP), 5, NEVER),
}
LONG = QUICK | {
    "draft 1": lambda rule: (speculative(1, rule), 3, NEVER),
    "draft 2": lambda rule: (speculative(2, rule), 4, NEVER),
    "draft 2, hot": lambda rule: (speculative(2, rule, temperature=1.7, top_p=1.0), 4, NEVER),
    "draft 2, narrow": lambda rule: (speculative(2, rule, top_p=0.5), 4, NEVER),
    "draft 4": lambda rule: (speculative(4, rule), 6, NEVER),
    "lookup 1": lambda rule: (prompt_lookup(1, rule), 3, NEVER),
    "lookup 3, eos": lambda rule: (prompt_lookup(3, rule, eos=2), 5, 2),
}


@pytest.mark.parametrize("rule", EXACT)
@pytest.mark.parametrize("setting", QUICK)
def test_a_decoder_has_the_targets_law(setting, rule):
    decoder, length, eos = QUICK[setting](EXACT[rule])
    assert p_value(decoder, length, DRAWS, eos) > LEVEL


@pytest.mark.nightly
@pytest.mark.parametrize("rule", EXACT)
@pytest.mark.parametrize("setting", LONG)
def test_a_decoder_has_the_targets_law_in_many_draws(setting, rule):
    decoder, length, eos = LONG[setting](EXACT[rule])
    assert p_value(decoder, length, MANY_DRAWS, eos) > LEVEL


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_twin_of_the_target_is_accepted_whole(n):
    assert wasted(twins(n)) == wasted(twins(n, BLOCK)) == wasted(real_twins(n)) == 0
