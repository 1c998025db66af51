"""Acceptance, from counts to  Pure functions of numbers: not of tokens or models.

"Acceptance rate" has two readings. The paper's 75.78 % fits the per-position rate, which counts the accept tests at
all n positions, also after a rejection; accepted/drafted is lower (58.9 % under independence at n = 3).
"""


def per_position_rate(
    accepts_per_position: list[int], tests_per_position: list[int]
) -> float | None:
    """Per cent of all accept tests that passed; None where nothing was drafted."""
    return _percent(sum(accepts_per_position), sum(tests_per_position))


def draft_acceptance_rate(accepted: int, drafted: int) -> float | None:
    """Per cent of the drafted tokens that were emitted; None where nothing was drafted."""
    return _percent(accepted, drafted)


def mean_overlap(overlap: float, drafted: int) -> float | None:
    """Mean of sum min(p, q) over the drafted positions, in per cent: the expected per-position rate, less noisy."""
    return _percent(overlap, drafted)


def mean_acceptance_length(tokens: int, steps: int) -> float:
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


def accounted_speedup(predictions: list[dict], costs: dict) -> float | None:
    """From the counts of some prompts and the costs: how much faster than autoregression if a loop took no time of its own; None without costs.

    Autoregression reads the prompt, which brings the first token, and takes a step for each of the others. A draft reads the prompt, which
    brings its first token, and takes c for each of the others; the target reads prompt and first block at once, and then v(k) for each
    block of k drafted tokens. Blocks that drafted less than n, at the end of a text or where a lookup found nothing, are counted as such.
    """
    if costs["draft_cost"] is None:
        return None
    plain = sum(
        costs["prompt_cost"] + item["autoregressive_new_tokens"] - 1 for item in predictions
    )
    tokens = [
        sum(item[f"{side}new_tokens"] for item in predictions) for side in ("", "autoregressive_")
    ]
    return tokens[0] / sum(_taken(item, costs) for item in predictions) / (tokens[1] / plain)


def _taken(item: dict, costs: dict) -> float:
    """Steps of autoregression that a prompt and its blocks take."""
    tests = item["tests_per_position"]  # blocks that drafted at least 1, 2 .. n tokens
    reached = [item["steps"], *tests, 0]
    blocks = [
        more - less for more, less in zip(reached, reached[1:])
    ]  # of 0, 1 .. n drafted tokens
    first = max(
        (width for width, count in enumerate(blocks) if count), default=0
    )  # the block that the prompt was read with
    verified = (
        sum(count * cost for count, cost in zip(blocks, costs["verify_costs"]))
        - costs["verify_costs"][first]
    )
    drafted = max(0, item["drafted"] - 1) * costs["draft_cost"] + costs["draft_prompt_cost"]
    return costs["prompt_cost"] + verified + drafted


def _percent(part: float, whole: int) -> float | None:
    return 100 * part / whole if whole else None


def acceptance_metrics(predictions: list[dict]) -> dict:
    """Decision 13: both readings of the acceptance rate, in per cent, and the overlap, which is the least noisy. None: not told."""
    tests, accepts = (
        _columns(predictions, f"{name}_per_position") for name in ("tests", "accepts")
    )
    tokens, steps, accepted, drafted = (
        sum(item[name] for item in predictions)
        for name in ("new_tokens", "steps", "accepted", "drafted")
    )
    overlaps = [item["overlap"] for item in predictions]
    return {
        "acceptance_rate_per_position": per_position_rate(accepts, tests),
        "draft_acceptance_rate": draft_acceptance_rate(accepted, drafted),
        "overlap": None if None in overlaps else mean_overlap(sum(overlaps), drafted),
        "mean_acceptance_length": mean_acceptance_length(tokens, steps),
        "new_tokens_mean": tokens / len(predictions),
        "tests_per_position": tests,
        "accepts_per_position": accepts,
    }


def _columns(predictions: list[dict], name: str) -> list[int]:
    """Sums by position over the prompts; empty where a backend does not tell."""
    return [sum(column) for column in zip(*(item[name] for item in predictions), strict=True)]


def by_task(measure, predictions: list[dict]) -> dict:
    """The metrics of all predictions, and of each task under its name, e.g. report_speedup."""
    found = measure(predictions)
    for task in sorted({item["task"] for item in predictions}):
        found |= {
            f"{task}_{name}": value
            for name, value in measure(
                [item for item in predictions if item["task"] == task]
            ).items()
        }
    return found
