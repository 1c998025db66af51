"""The rules that accept drafted tokens: the paper's Eq. 3 and Eq. 4, and the exact rules.

`rejection` (the default), `block` and `token_match` emit the target's distribution exactly.
`paper_literal`, Eq. 3 and Eq. 4 as printed, does not. A rule maps the distributions of a block to
an `AcceptanceTest`, and `verify_block` samples from it. Under greedy decoding the exact rules
coincide: `verify_greedy`. Pure functions; a generator carries all randomness.
"""

from __future__ import annotations

import torch

from soaes.decode.base import AcceptanceTest, Rule, Verdict
from soaes.decode.sampling import one_hot, sample, uniforms

# n drafted tokens, V vocabulary. p_rows [n + 1, V] are the target's distributions and q_rows [n, V]
# the draft's, warped in the same way; row i is what follows the first i drafted tokens.


# ---------------------------------------------------------------- verification of a block


def verify_block(
    rule: Rule,
    p_rows: torch.Tensor,
    q_rows: torch.Tensor | None,
    drafted: list[int],
    generator: torch.Generator,
) -> Verdict:
    """Accept drafted tokens by a rule, and draw the token that follows them.

    Args:
        rule: The acceptance rule.
        p_rows: Target distributions [n + 1, V]; the last row is that of the bonus token.
        q_rows: Draft distributions [n, V]; not read if nothing was drafted.
        drafted: The n drafted token ids; n may be 0.
        generator: Source of the n uniform numbers of the tests and of the token that follows.
    """
    if not drafted:  # nothing to test: one step of the target
        return Verdict(0, sample(p_rows[0], generator), [], 0.0)
    assert q_rows is not None, (
        "drafted tokens come with the distributions that they were drawn from"
    )
    test = rule.test(p_rows, q_rows, drafted)
    draws = uniforms(len(drafted), generator).tolist()
    passed = [draw < prob for draw, prob in zip(draws, test.accept_probs, strict=True)]
    accepted = test.count(passed)
    overlap = float(torch.minimum(p_rows[:-1], q_rows).sum())
    return Verdict(accepted, sample(test.next_probs(accepted), generator), passed, overlap)


def verify_greedy(predicted: list[int], drafted: list[int]) -> Verdict:
    """Accept drafted tokens up to the first that is not the target's argmax.

    Every exact rule comes to this for one-hot distributions.

    Args:
        predicted: The target's argmax at n + 1 positions; the last is the bonus token.
        drafted: The n drafted token ids.
    """
    passed = [best == token for best, token in zip(predicted, drafted)]
    accepted = count_leading(passed)
    return Verdict(accepted, predicted[accepted], passed, float(sum(passed)))


# ---------------------------------------------------------------- Eq. 4


def residual(p_V: torch.Tensor, q_V: torch.Tensor) -> torch.Tensor:
    """Eq. 4: norm(max(p - q, 0)), the distribution of the token that replaces a rejected one.

    Where p equals q no rejection can happen; if rounding leaves the difference empty, the limit p
    is returned.
    """
    return _normalise((p_V - q_V).clamp_(min=0.0), p_V)


# ---------------------------------------------------------------- the rules


def rejection(p_rows: torch.Tensor, q_rows: torch.Tensor, drafted: list[int]) -> AcceptanceTest:
    """Accept token x with probability min(1, p(x) / q(x)) up to the first failure, then Eq. 4.

    Leviathan et al. (2023), Chen et al. (2023). Exact.
    """
    p_n, q_n = _probs_of_drafted(p_rows, q_rows, drafted)
    accept_probs = [min(1.0, p / q) for p, q in zip(p_n, q_n)]
    return AcceptanceTest(
        accept_probs, count_leading, lambda accepted: _next_probs(p_rows, q_rows, accepted)
    )


def paper_literal(p_rows: torch.Tensor, q_rows: torch.Tensor, drafted: list[int]) -> AcceptanceTest:
    """Eq. 3 as printed, then Eq. 4. BIASED: the text does not have the target's distribution.

    Eq. 3 accepts token x where a sample of the target equals it, that is with probability p(x).
    With p = (.5, .5) and q = (.9, .1) the first token then has the distribution (.45, .55). Every
    table row decoded by this rule is marked as biased.
    """
    accept_probs, _ = _probs_of_drafted(p_rows, q_rows, drafted)
    return AcceptanceTest(
        accept_probs, count_leading, lambda accepted: _next_probs(p_rows, q_rows, accepted)
    )


def token_match(p_rows: torch.Tensor, q_rows: torch.Tensor, drafted: list[int]) -> AcceptanceTest:
    """Emit the target's own samples, for as long as they equal the drafted tokens.

    Exact whatever the draft, and accepts less than rejection. A sample of p equals the drafted
    token x with probability p(x), else it is one of the others: `rejection` of a draft that puts
    all its mass on x.
    """
    tokens_n = torch.tensor(drafted, device=p_rows.device)
    one_hot_nV = one_hot(tokens_n, p_rows.shape[-1], p_rows.dtype)
    return rejection(p_rows, one_hot_nV, drafted)


def block(p_rows: torch.Tensor, q_rows: torch.Tensor, drafted: list[int]) -> AcceptanceTest:
    """Accept the block up to the last test that passes; expects no fewer tokens than rejection.

    Sun et al. (2024), Algorithm 2. Exact. keep[i] = min(keep[i-1] p/q, 1), keep[0] = 1, is the
    probability of keeping the first i drafted tokens. Let residual_i = max(keep[i] p - q, 0), not
    normalised, over what follows them, and w_i its mass. Test i < n passes with probability
    w_i / (w_i + 1 - keep[i]), the last one with keep[n]. The token after i < n accepted ones is
    drawn from residual_i / w_i.
    """
    p_n, q_n = _probs_of_drafted(p_rows, q_rows, drafted)
    keep = [1.0]
    for p, q in zip(p_n, q_n):
        keep.append(min(keep[-1] * p, q) / q)
    keep_n1 = torch.tensor(keep[:-1], dtype=p_rows.dtype, device=p_rows.device)[:, None]
    residual_nV = (keep_n1 * p_rows[:-1] - q_rows).clamp_(min=0.0)
    masses = residual_nV.sum(-1).tolist()

    accept_probs = []
    for mass, keep_prob in zip(masses[1:], keep[1:]):
        total = mass + 1 - keep_prob
        # total 0: everything is kept and the residual is empty, so p equals q here and the block
        # continues whatever this test says
        accept_probs.append(mass / total if total > 0 else 1.0)

    def next_probs(accepted: int) -> torch.Tensor:
        if accepted == len(drafted):
            return p_rows[-1]
        return _normalise(residual_nV[accepted], p_rows[accepted])

    return AcceptanceTest([*accept_probs, keep[-1]], count_to_last_pass, next_probs)


REJECTION = Rule("rejection", exact=True, test=rejection)
BLOCK = Rule("block", exact=True, test=block)
TOKEN_MATCH = Rule("token_match", exact=True, test=token_match)
PAPER_LITERAL = Rule("paper_literal", exact=False, test=paper_literal)
RULES = {rule.name: rule for rule in (REJECTION, BLOCK, TOKEN_MATCH, PAPER_LITERAL)}


# ---------------------------------------------------------------- parts of the rules


def count_leading(passed: list[bool]) -> int:
    """Count the tests passed before the first failure."""
    return passed.index(False) if False in passed else len(passed)


def count_to_last_pass(passed: list[bool]) -> int:
    """Return the position of the last passed test, counted from 1; 0 if none passed."""
    return max((position for position, test in enumerate(passed, 1) if test), default=0)


def _next_probs(p_rows: torch.Tensor, q_rows: torch.Tensor, accepted: int) -> torch.Tensor:
    """The bonus token's distribution if all were accepted, else the residual at the rejection."""
    if accepted == len(q_rows):
        return p_rows[-1]
    return residual(p_rows[accepted], q_rows[accepted])


def _normalise(residual_V: torch.Tensor, limit_V: torch.Tensor) -> torch.Tensor:
    total = residual_V.sum()
    return residual_V / total if total > 0 else limit_V


def _probs_of_drafted(
    p_rows: torch.Tensor, q_rows: torch.Tensor, drafted: list[int]
) -> tuple[list[float], list[float]]:
    """p and q of the drafted tokens; q is positive, because the draft drew them."""
    tokens_n1 = torch.tensor(drafted, device=p_rows.device)[:, None]
    p_n = p_rows[:-1].gather(1, tokens_n1)[:, 0]
    q_n = q_rows.gather(1, tokens_n1)[:, 0]
    return p_n.tolist(), q_n.tolist()
