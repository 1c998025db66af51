"""Planted bugs: each fails the tests of test_exactness, at their own levels.

None of them can be switched on in the product.
"""

import itertools

import pytest
import torch

from soaes.decode.base import Rule
from soaes.decode.sampling import nucleus
from soaes.decode.speculative import Speculative
from soaes.decode.verify import PAPER_LITERAL, TOKEN_MATCH, block, rejection
from tests.helpers.laws import (
    DRAWS,
    EXACT,
    LEVEL,
    MANY_DRAWS,
    Table,
    error,
    p_value,
    pairs,
    real_twins,
    speculative,
    twins,
    wasted,
)


def planted(test):
    """A rule that decoders take for an exact one."""
    return Rule(test.__name__, exact=True, test=test)


@planted
def bonus_from_the_draft(p_rows, q_rows, drafted):
    law = rejection(p_rows, q_rows, drafted)
    return law._replace(
        next_probs=lambda accepted: (
            q_rows[-1] if accepted == len(drafted) else law.next_probs(accepted)
        )
    )


@planted
def ratio_too_large(p_rows, q_rows, drafted):
    law = rejection(p_rows, q_rows, drafted)
    return law._replace(accept_probs=[min(1.0, 1.05 * chance) for chance in law.accept_probs])


@planted
def resampled_from_p(p_rows, q_rows, drafted):
    return rejection(p_rows, q_rows, drafted)._replace(next_probs=lambda accepted: p_rows[accepted])


@planted
def block_without_its_own_residual(p_rows, q_rows, drafted):
    return block(p_rows, q_rows, drafted)._replace(
        next_probs=rejection(p_rows, q_rows, drafted).next_probs
    )


@planted
def block_up_to_the_first_failure(p_rows, q_rows, drafted):
    return block(p_rows, q_rows, drafted)._replace(count=rejection(p_rows, q_rows, drafted).count)


WRONG = [
    bonus_from_the_draft,
    ratio_too_large,
    resampled_from_p,
    block_without_its_own_residual,
    block_up_to_the_first_failure,
    PAPER_LITERAL,
]


@pytest.mark.parametrize("rule", WRONG, ids=lambda rule: rule.name)
def test_a_wrong_rule_fails_the_enumeration(rule):
    assert max(error(rule.test, *pair) for pair in pairs(84)) > 1e-3


@pytest.mark.parametrize("rule", EXACT.values(), ids=EXACT)
def test_top_p_on_one_side_fails_the_enumeration(rule):
    p, q, n = next(itertools.islice(pairs(), 70, None))
    p, cut = ([nucleus(rows, 0.8) for rows in table] for table in (p, q))
    distance = error(rule.test, p, cut, n, claimed=q)
    if rule is TOKEN_MATCH:  # does not read q
        assert distance < 1e-12
    else:
        assert distance > 1e-3


class ToldTheUnwarped(Speculative):
    """top-p on the draft's draws, but not in the q that the rule is given."""

    def propose(self, sequence, count, generator):
        drafted, _ = yield from super().propose(sequence, count, generator)
        text = [*sequence, *drafted]
        rows = [self.draft.row(text[:end]).softmax(-1) for end in range(len(sequence), len(text))]
        return drafted, torch.stack(rows) if rows else None


class ToldTheNeighbours(Speculative):
    """Each drafted token comes with the distribution of the token beside it."""

    def propose(self, sequence, count, generator):
        drafted, q_nV = yield from super().propose(sequence, count, generator)
        return drafted, None if q_nV is None else q_nV.roll(1, 0)


class RowsOneBack(Table):
    """Of a block it returns what followed one token earlier."""

    def forward(self, ids_T, tail=None):
        rows = super().forward(ids_T, len(ids_T))
        return rows.roll(1, 0)[-tail:]


class OnePositionLate(Table):
    """After the prompt, positions are off by one."""

    def forward(self, ids_T, tail=None):
        if self.length == 0:
            return super().forward(ids_T, tail)
        self.logits_2VVV, true = self.logits_2VVV.roll(1, 0), self.logits_2VVV
        rows = super().forward(ids_T, tail)
        self.logits_2VVV = true
        return rows


class StaleCache(Speculative):
    """After full acceptance the draft's cache counts its last token as read.

    It keeps in its place what was there before.
    """

    def propose(self, sequence, count, generator):
        self.draft.length += self.draft.length == len(sequence) - 2
        return super().propose(sequence, count, generator)


SEEN_IN_THE_TEXT = {
    "bonus from the draft": lambda: speculative(2, bonus_from_the_draft),
    "resampled from p": lambda: speculative(2, resampled_from_p),
    "top-p on one side": lambda: speculative(2, of=ToldTheUnwarped, top_p=0.7),
    "draft rows off by one": lambda: speculative(2, of=ToldTheNeighbours, top_p=1.0),
    "target rows off by one": lambda: speculative(2, target=RowsOneBack),
    "target positions off by one": lambda: speculative(2, target=OnePositionLate),
}
SEEN_BY_THE_TWIN = {  # the law stays the target's, because the rule is given the q that drafted
    "stale cache": lambda: twins(2, of=StaleCache),
    "stale cache of a real model": lambda: real_twins(2, of=StaleCache),
    "draft positions off by one": lambda: twins(2, draft=OnePositionLate),
}


@pytest.mark.parametrize("bug", SEEN_IN_THE_TEXT)
def test_a_bug_in_the_loop_fails_the_chi_square(bug):
    assert p_value(SEEN_IN_THE_TEXT[bug](), 4, DRAWS) < LEVEL


@pytest.mark.parametrize("bug", SEEN_BY_THE_TWIN)
def test_a_bug_of_the_draft_wastes_a_twins_tokens(bug):
    assert wasted(SEEN_BY_THE_TWIN[bug]()) > 0


@pytest.mark.nightly
def test_the_papers_bias_is_seen_in_many_draws():
    assert p_value(speculative(2, PAPER_LITERAL), 4, MANY_DRAWS) < LEVEL
