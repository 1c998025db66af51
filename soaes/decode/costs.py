"""What a block costs, in steps of the target, timed outside the loop.

Knows the parts of our own decoders and the clock. Another library's are not ours to time: its rows go without an account."""

import statistics
import time
from collections.abc import Callable

import torch

from soaes.decode.sampling import one_hot
from soaes.decode.speculative import verify

TURNS, REPEATS = (
    20,
    10,
)  # a round is repeated, so that the processor's caches are as its own loop leaves them


Round = dict[str, Callable]  # actions that follow each other, by name


def measure_costs(pair, questions: list[dict], generations: list, seed: int) -> dict:
    """Of a middling prompt and half its answer, all in steps of autoregression but target_step_ms:

    draft_cost c, of one drafted token; verify_costs, of verifying 0 .. n drafted tokens (v of the last is verify_cost); prompt_cost and
    draft_prompt_cost, of reading the prompt; and baseline_share: what the matrix products of a step take alone, over the step.
    All are None where the backend's parts cannot be timed."""
    if not pair.timeable:
        return dict.fromkeys(
            (
                "draft_cost",
                "verify_cost",
                "verify_costs",
                "prompt_cost",
                "draft_prompt_cost",
                "baseline_share",
                "target_step_ms",
            )
        )
    order = sorted(
        range(len(questions)),
        key=lambda index: len(questions[index]["ids"] + generations[index].tokens),
    )
    middle = order[len(order) // 2]
    prompt, tokens = questions[middle]["ids"], generations[middle].tokens
    sequence = (prompt + tokens[: (len(tokens) + 1) // 2])[
        : pair.baseline.target.positions - pair.n
    ]
    of_text = _medians(
        pair,
        _rounds(pair, sequence, torch.Generator().manual_seed(seed)),
        len(sequence) - 1,
        len(sequence) + pair.n + 1,
    )
    of_prompt = _medians(pair, _readings(pair, prompt), 0, len(prompt) + pair.n + 1)
    step = of_text["step"]
    wide = [of_text[f"verify {width}"] / step for width in range(1, pair.n + 1)]
    return {
        "draft_cost": of_text.get("propose", 0.0) / step,
        "verify_cost": wide[-1] if wide else 1.0,
        "verify_costs": [1.0, *wide],
        "prompt_cost": of_prompt["target"] / step,
        "draft_prompt_cost": of_prompt.get("draft", 0.0) / step,
        "baseline_share": of_text["products"] / step,
        "target_step_ms": 1000 * step,
    }


def _rounds(pair, sequence: list[int], generator: torch.Generator) -> list[Round]:
    """A step of autoregression, its matrix products alone, and blocks of every width: a draft's step comes after the target has filled the
    caches with its own weights, and costs more there than after another draft's step."""
    baseline, method = pair.baseline, pair.method
    target = baseline.target
    inputs = [
        (matrix, torch.zeros(1, len(matrix.plain), dtype=target.dtype, device=target.device))
        for matrix in target.matrices
    ]
    rounds: list[Round] = [
        {"step": lambda: baseline.step(sequence, generator)},
        {"products": lambda: [matrix(x_1K) for matrix, x_1K in inputs]},
    ]
    if pair.n:
        method.adaptive = None  # a cost is one of a whole block
    for width in range(1, pair.n + 1):
        drafted = (sequence * width)[
            -width:
        ]  # what is verified does not matter to the clock, its width does
        q_nV = one_hot(torch.tensor(drafted, device=target.device), target.vocab, torch.float32)
        rounds.append({"propose": lambda: method.propose(sequence, method.n, generator)[0],
                       f"verify {width}": lambda drafted=drafted, q_nV=q_nV: verify(method, sequence, drafted, q_nV, generator)})  # fmt: skip
    return rounds


def _readings(pair, prompt: list[int]) -> list[Round]:
    """The prompt's own forward of each model."""
    ids = torch.tensor(prompt, device=pair.baseline.target.device)
    return [
        {
            name: lambda engine=engine: engine.forward(ids, tail=1)
            for name, engine in zip(("target", "draft"), pair.method.engines)
        }
    ]


def _medians(pair, rounds: list[Round], known: int, needed: int) -> dict[str, float]:
    """Seconds of each action, the rounds taken in turns; of `propose` a drafted token's. `known` tokens are in the models' caches before each."""
    for engine in pair.method.engines:
        engine.begin(needed)
    times = {name: [] for round_ in rounds for name in round_}
    with torch.inference_mode():
        for round_ in [round_ for round_ in rounds * TURNS for _ in range(REPEATS)]:
            for name, action in round_.items():
                start = time.perf_counter()
                result = action()
                times[name].append(
                    (time.perf_counter() - start)
                    / (max(1, len(result)) if name == "propose" else 1)
                )
                for engine in pair.method.engines:
                    engine.rollback(min(engine.length, known))
    return {name: statistics.median(taken) for name, taken in times.items()}
