"""The rules that accept drafted tokens. Pure functions of distributions; each rule samples from the very law that a test enumerates.

`rejection` (the default), `block` and `token_match` emit the target's distribution exactly; `paper_literal` does not and is here to be shown.
All are called as rule(p_rows, q_rows, drafted, generator) -> Verdict, and rule.law(p_rows, q_rows, drafted) is what they draw from.
Under greedy decoding the exact rules are one, `greedy_match`.
"""

from collections.abc import Callable
from functools import partial, wraps
from typing import NamedTuple

import torch

from soaes.decode.base import Verdict
from soaes.decode.sampling import one_hot, sample, uniforms

# n drafted tokens, V vocabulary; p_rows [n + 1, V] is the target's and q_rows [n, V] the draft's distribution, both
# warped in the same way; row i is what follows the first i drafted tokens


class Law(NamedTuple):
    """A rule at one block before any draw."""

    chances: list[float]  # of the n tests to pass, each on its own
    count: Callable[[list[bool]], int]  # tests passed -> drafted tokens accepted
    following: Callable[[int], torch.Tensor]  # accepted -> distribution_V of the token after them


def drawn(law: Callable[..., Law]) -> Callable[..., Verdict]:
    """A rule from its law: draw the n tests, then the token that follows the accepted ones."""

    @wraps(law)
    def rule(
        p_rows: torch.Tensor, q_rows: torch.Tensor, drafted: list[int], generator: torch.Generator
    ) -> Verdict:
        if not drafted:  # nothing to test: one step of the target
            return Verdict(0, sample(p_rows[0], generator), [], 0.0)
        chances, count, following = law(p_rows, q_rows, drafted)
        passed = [
            u < chance
            for u, chance in zip(uniforms(len(drafted), generator).tolist(), chances, strict=True)
        ]
        accepted = count(passed)
        overlap = float(torch.minimum(p_rows[:-1], q_rows).sum())
        return Verdict(accepted, sample(following(accepted), generator), passed, overlap)

    del rule.__wrapped__  # its call form is the rule's, not the law's
    rule.law, rule.exact = law, True
    return rule


def bound(decode: partial) -> Callable[..., Verdict] | None:
    """The rule of a decoder as a configuration binds it; None for one that verifies nothing, or by its own default."""
    rule = decode.keywords.get("rule")
    return getattr(rule, "func", rule)


def named(rule: Callable[..., Verdict] | None) -> str | None:
    """How a row tells its rule: `block`, or `paper_literal (biased)`."""
    return rule and (rule.__name__ if rule.exact else f"{rule.__name__} (biased)")


@drawn
def rejection(p_rows: torch.Tensor, q_rows: torch.Tensor, drafted: list[int]) -> Law:
    """Leviathan et al. (2023), Chen et al. (2023): accept with min(1, p/q) up to the first failure, there draw from Eq. 4."""
    chances = [min(1.0, p / q) for p, q in zip(*_drafted(p_rows, q_rows, drafted))]
    return Law(chances, first_run, lambda accepted: _after(p_rows, q_rows, accepted))


@drawn
def block(p_rows: torch.Tensor, q_rows: torch.Tensor, drafted: list[int]) -> Law:
    """Sun et al. (2024), Algorithm 2: accept the block up to the last test that passes; expects no fewer tokens than rejection.

    kept[i] = min(kept[i-1] p/q, 1), kept[0] = 1, is the chance to keep the first i drafted tokens. With owed_i = max(kept[i] p - q, 0)
    of what follows them and w_i its mass, test i < n passes with w_i / (w_i + 1 - kept[i]) and the last with kept[n]; the token
    after i < n accepted ones is drawn from owed_i / w_i.
    """
    kept = [1.0]
    for p, q in zip(*_drafted(p_rows, q_rows, drafted)):
        kept.append(min(kept[-1] * p, q) / q)
    scale_n1 = torch.tensor(kept[:-1], dtype=p_rows.dtype, device=p_rows.device)[:, None]
    owed_nV = (scale_n1 * p_rows[:-1] - q_rows).clamp_(min=0.0)
    masses = owed_nV.sum(-1).tolist()
    # all kept and nothing owed: p equals q here, so the block goes on whatever this test says
    chances = [
        mass / (mass + 1 - keep) if mass + 1 - keep > 0 else 1.0
        for mass, keep in zip(masses[1:], kept[1:])
    ]
    return Law(
        [*chances, kept[-1]],
        last_pass,
        lambda accepted: (
            p_rows[-1]
            if accepted == len(drafted)
            else _normalised(owed_nV[accepted], p_rows[accepted])
        ),
    )


@drawn
def token_match(p_rows: torch.Tensor, q_rows: torch.Tensor, drafted: list[int]) -> Law:
    """Emit the target's own samples, the drafted tokens as far as they are equal: exact whatever the draft, and accepts less.

    A sample of p equals the drafted token with p(token), else it is one of the others: that is `rejection` of a draft that is
    certain of its token.
    """
    return rejection.law(
        p_rows,
        one_hot(torch.tensor(drafted, device=p_rows.device), p_rows.shape[-1], p_rows.dtype),
        drafted,
    )


@drawn
def paper_literal(p_rows: torch.Tensor, q_rows: torch.Tensor, drafted: list[int]) -> Law:
    """BIASED, not the target's distribution: the paper's Eq. 3 (a sample of the target matches) followed by its Eq. 4 (residual).

    At p = (.5, .5), q = (.9, .1) it emits (.45, .55). Any row decoded by it must say so.
    """
    chances, _ = _drafted(p_rows, q_rows, drafted)
    return Law(chances, first_run, lambda accepted: _after(p_rows, q_rows, accepted))


paper_literal.exact = False


def greedy_match(predicted: list[int], drafted: list[int]) -> Verdict:
    """Every exact rule for one-hot distributions: a drafted token stands where it is the target's argmax."""
    passed = [
        best == token for best, token in zip(predicted, drafted)
    ]  # the last prediction is the bonus
    accepted = first_run(passed)
    return Verdict(accepted, predicted[accepted], passed, float(sum(passed)))


def residual(p_V: torch.Tensor, q_V: torch.Tensor) -> torch.Tensor:
    """Eq. 4: norm(max(p - q, 0)), what the target still owes after a rejection.

    Where p equals q no rejection can happen; rounding may leave the difference empty, and p is its limit.
    """
    return _normalised((p_V - q_V).clamp_(min=0.0), p_V)


def first_run(passed: list[bool]) -> int:
    """Tests passed before the first that failed."""
    return passed.index(False) if False in passed else len(passed)


def last_pass(passed: list[bool]) -> int:
    """The position of the last test that passed, counted from 1; 0 where none did."""
    return max((position for position, test in enumerate(passed, 1) if test), default=0)


def _after(p_rows, q_rows, accepted):
    return p_rows[-1] if accepted == len(q_rows) else residual(p_rows[accepted], q_rows[accepted])


def _normalised(owed_V, limit_V):
    total = owed_V.sum()
    return owed_V / total if total > 0 else limit_V


def _drafted(p_rows, q_rows, drafted) -> tuple[list[float], list[float]]:
    """p and q of the drafted tokens; q is positive, because the draft drew them."""
    tokens_n1 = torch.tensor(drafted, device=p_rows.device)[:, None]
    return p_rows[:-1].gather(1, tokens_n1)[:, 0].tolist(), q_rows.gather(1, tokens_n1)[
        :, 0
    ].tolist()
