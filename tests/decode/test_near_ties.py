"""Greedy outputs may leave the target's own where two logits are nearer than they are rounded."""

import pytest
import torch

from soaes.decode.near_ties import Target, count_near_ties, tie_bound
from soaes.decode.prompts import Prompt

EOS, PROMPT = 1, Prompt("q7", "qa", [], [5, 6], max_new_tokens=4)
REFERENCE = [10, 11, 12, 13]
LARGEST = 20.0  # of the logits: bfloat16 has a bound of 20 / 32 there
TERMS = 4  # of the longest sum: float32 has a bound of 20 / 2 ** 20


def counted(output, gaps, dtype="bfloat16", reference=REFERENCE):
    """The near ties of an output whose tokens are so far below a target's best, by position."""

    def logits(ids, tail):
        assert ids == PROMPT.ids + output[:-1] and tail == len(output)
        logits_TV = torch.zeros(tail, 32, dtype=getattr(torch, dtype))
        logits_TV[:, 31] = -LARGEST
        for position, token in enumerate(output):
            logits_TV[position, 30] = 16.0
            logits_TV[position, token] = 16.0 - gaps[position]
            if token != reference[position] and output[:position] == reference[:position]:
                logits_TV[position, reference[position]] = 16.0
        return logits_TV

    return count_near_ties(Target(logits, TERMS), PROMPT, output, reference, EOS, dtype)


def test_equal_outputs_have_no_ties_in_any_precision():
    for dtype in ("float32", "bfloat16", "float16"):
        assert counted(REFERENCE, [0] * 4, dtype) == 0


def test_the_bound_is_that_of_the_roundings():
    """In float32 those of a sum, in low precision those of what is stored."""
    for terms in (4, 256):
        assert tie_bound("bfloat16", terms) == 8 * 2**-8
        assert tie_bound("float16", terms) == 8 * 2**-11
    assert tie_bound("float32", 4) == 8 * 2 * 2**-24
    assert tie_bound("float32", 256) == 8 * 16 * 2**-24


def test_float32_has_near_ties_of_its_own_rounding():
    """A gap of 2e-6 of the largest logit is one where sums are long; of 1e-3 never."""
    assert counted([10, 9, 8, 7], [0, LARGEST / 2**20, 0, 0], "float32") == 1
    with pytest.raises(ValueError, match="at no near tie: at new token 1 .*the decoder is wrong"):
        counted([10, 9, 8, 7], [0, LARGEST / 2**19, 0, 0], "float32")
    assert 2e-6 < tie_bound("float32", 64) < tie_bound("float32", 30_000) < 1e-3


def test_a_near_tie_is_counted_with_those_that_follow_it():
    assert counted([10, 9, 8, 7], [0, 0.5, 0, 0]) == 1
    assert counted([10, 9, 8, 7], [0, 0, 0.5, 0.5]) == 3, "an exact tie is one as well"
    assert counted([10, 9, EOS], [0, 0.5, 0]) == 1
    assert counted([EOS], [0.5]) == 1, "the end may be tied with going on"


@pytest.mark.parametrize(
    ("output", "gaps", "message"),
    [
        pytest.param([10, 9, 8, 7], [0, 1, 0, 0], "at no near tie: at new token 1", id="first"),
        pytest.param([10, 9, 8, 7], [0, 0.5, 0, 1], "at no near tie: at new token 3", id="later"),
        pytest.param([10, 9, 8, 7], [0, 0.5, 0, 9], "9 below .* by 0.625 at most", id="gap"),
        pytest.param([10, 11], [0, 0], "it ends where the target does not", id="cut-short"),
        pytest.param([10, 9], [0, 0], "it ends where the target does not", id="tie-cut-short"),
        pytest.param([10, EOS, 9, 9], [0, 0, 0, 0], "it ends where", id="beyond-the-end"),
    ],
)
def test_what_no_rounding_explains_is_refused_by_name(output, gaps, message):
    with pytest.raises(ValueError, match=f"row refused: prompt q7 differs.*{message}"):
        counted(output, gaps)


def test_the_token_of_autoregression_must_be_near_too():
    """Else a wrong baseline would prove a right output."""

    def logits(ids, tail):
        logits_TV = torch.zeros(tail, 32, dtype=torch.bfloat16)
        logits_TV[:, 9] = 16.0
        return logits_TV

    with pytest.raises(ValueError, match="at new token 1 a logit is 16 below"):
        count_near_ties(Target(logits, TERMS), PROMPT, [10, 9, 9, 9], REFERENCE, EOS, "bfloat16")
