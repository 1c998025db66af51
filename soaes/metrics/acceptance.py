"""Acceptance, from counts to rates. Pure functions of numbers: not of tokens or models.

"Acceptance rate" has two readings. The paper's 75.78 % fits the per-position rate, which counts the accept tests at
all n positions, also after a rejection; accepted/drafted is lower (58.9 % under independence at n = 3).
"""


def per_position_rate(accepts_per_position: list[int], tests_per_position: list[int]) -> float | None:
    """Per cent of all accept tests that passed; None where nothing was drafted."""
    return _percent(sum(accepts_per_position), sum(tests_per_position))


def accepted_over_drafted(accepted: int, drafted: int) -> float | None:
    """Per cent of the drafted tokens that were emitted; None where nothing was drafted."""
    return _percent(accepted, drafted)


def mean_overlap(overlap: float, drafted: int) -> float | None:
    """Mean of sum min(p, q) over the drafted positions, in per cent: the expected per-position rate, less noisy."""
    return _percent(overlap, drafted)


def tokens_per_step(tokens: int, steps: int) -> float:
    """New tokens a forward of the target; 1 for autoregression."""
    return tokens / steps


def expected_tokens(rate: float, n: int) -> float:
    """E(a, n) = (1 - a^(n+1)) / (1 - a): tokens a step when each of n tokens is accepted with a in [0, 1] on its own.

    Written as 1 + a + ... + a^n, the same number, which also holds at a = 1.
    """
    return sum(rate**position for position in range(n + 1))


def predicted_speedup(rate: float, n: int, draft_cost: float, verify_cost: float) -> float:
    """E(a, n) / (n c + v): c = draft step and v = verification, both in steps of the target.

    Assumes n drafted tokens in every step: an upper bound for prompt lookup, which drafts only where it finds a match.
    """
    return expected_tokens(rate, n) / (n * draft_cost + verify_cost)


def _percent(part: float, whole: int) -> float | None:
    return 100 * part / whole if whole else None
