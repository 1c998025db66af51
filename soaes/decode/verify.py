"""The rules that accept drafted tokens. Pure functions of distributions, so that their law can be enumerated exactly.

`rejection` is the default (Leviathan et al., 2023). The paper's Eq. 3 (token match) followed by Eq. 4 (residual), read
literally, changes the target's distribution: at p = (.5, .5), q = (.9, .1) it emits (.45, .55).
"""

from typing import NamedTuple

import torch

from soaes.decode.distributions import sample, uniforms

# n drafted tokens, V vocabulary; p is the target's and q the draft's distribution, both warped in the same way


class Verdict(NamedTuple):
    """What one block came to. `passed` holds the accept test at all n positions, also after the first rejection."""

    accepted: int
    token: int  # emitted after the accepted ones: the correction, or the bonus when all are accepted
    passed: list[bool]
    overlap: float  # sum over the n positions of sum min(p, q)


def acceptance_probabilities(p_nV: torch.Tensor, q_nV: torch.Tensor) -> torch.Tensor:
    """min(1, p/q) of every token: the chance to accept it once drafted; 1 where q is 0, which is never drafted."""
    return torch.where(q_nV > 0, p_nV / q_nV, 1.0).clamp_(max=1.0)


def residual(p_V: torch.Tensor, q_V: torch.Tensor) -> torch.Tensor:
    """Eq. 4: norm(max(p - q, 0)), what the target still owes after a rejection.

    Where p equals q no rejection can happen; rounding may leave the difference empty, and p is its limit.
    """
    owed_V = (p_V - q_V).clamp_(min=0.0)
    total = owed_V.sum()
    return owed_V / total if total > 0 else p_V


def next_distribution(p_rows: torch.Tensor, q_rows: torch.Tensor, accepted: int) -> torch.Tensor:
    """What the token after the accepted ones is drawn from; with all accepted it is the bonus, the target's own."""
    return p_rows[accepted] if accepted == len(q_rows) else residual(p_rows[accepted], q_rows[accepted])


def rejection(p_rows: torch.Tensor, q_rows: torch.Tensor, drafted: list[int], generator: torch.Generator) -> Verdict:
    """Accept drafted token i with min(1, p/q), each tested; then draw the token that follows the accepted ones."""
    n = len(drafted)
    chances_n = acceptance_probabilities(p_rows[:n], q_rows)[range(n), drafted]
    passed = [u < chance for u, chance in zip(uniforms(n, generator).tolist(), chances_n.tolist(), strict=True)]
    accepted = _run(passed)
    token = sample(next_distribution(p_rows, q_rows, accepted), generator)
    return Verdict(accepted, token, passed, float(torch.minimum(p_rows[:n], q_rows).sum()))


def greedy_match(predicted: list[int], drafted: list[int]) -> Verdict:
    """The same rule for one-hot distributions: a drafted token stands where it is the target's argmax."""
    passed = [best == token for best, token in zip(predicted, drafted)]  # the last prediction is the bonus
    accepted = _run(passed)
    return Verdict(accepted, predicted[accepted], passed, float(sum(passed)))


def _run(passed: list[bool]) -> int:
    return passed.index(False) if False in passed else len(passed)
