"""Measure: what a decoder gains over one token a step, prompt by prompt and in pairs, with the proof that it may count.

Knows folders, the clock and the decoders' call form; how a decoder works stands in soaes.decode.
"""

import statistics
import time
from functools import partial
from pathlib import Path

import torch

from soaes import limits
from soaes.data import chat
from soaes.decode.autoregressive import Autoregressive
from soaes.decode.distributions import one_hot
from soaes.decode.generation import Generation
from soaes.decode.speculative import verify
from soaes.metrics import acceptance as rates
from soaes.metrics import rouge
from soaes.stages import acceptance

COST_TURNS, COST_BLOCK = 20, 10  # a block repeats one action, so that its caches are as warm as in its own loop


def speed(
    target: Path,
    documents: Path,
    *,
    decode: partial,
    sampling: dict[str, float],
    prompts: dict[str, int],
    max_new_tokens: dict[str, int],
    rounds: int,
    seed: int,
    threads: int,
    dtype: str,
    out: Path,
    draft: Path | None = None,
    device: str = "cpu",
    machine: str = "",
    backend: str = "",
    warmup: int = 1,
) -> None:
    """Decode the first test questions of each task by `decode` and by autoregression, interleaved; write metrics and predictions.

    decode: a decoder's class with its own settings bound; sampling: temperature and top_p of both sides; prompts, max_new_tokens:
    by task; warmup: rounds that are not counted; machine, backend: what was measured on, for the recipe.
    """
    limits.check(rounds=rounds)
    torch.set_num_threads(threads)
    engines, tokenizer = acceptance.load(target, draft, decode, dtype, device)
    eos = tokenizer.token_to_id(chat.END)
    baseline = Autoregressive(engines["target"], eos=eos, **sampling)
    method = baseline if decode.func is Autoregressive else decode(**engines, eos=eos, **sampling)
    questions = acceptance.questions(documents, tokenizer, prompts, max_new_tokens, method)
    seconds, outputs = _rounds(baseline, method, questions, rounds, warmup, seed)
    greedy = sampling["temperature"] == 0
    if greedy:
        _prove(questions, outputs)
    costs = _costs(baseline, method, questions, outputs["autoregressive"], seed)
    predictions = [
        acceptance.record(tokenizer, eos, question, outputs["method"][at])
        | {
            "seconds": [taken[at] for taken in seconds["method"]],
            "autoregressive": acceptance.text(tokenizer, eos, outputs["autoregressive"][at]),
            "autoregressive_new_tokens": len(outputs["autoregressive"][at].tokens),
            "autoregressive_seconds": [taken[at] for taken in seconds["autoregressive"]],
        }
        for at, question in enumerate(questions)
    ]
    metrics = {
        **acceptance.by_task(partial(_measured, n=method.n, costs=costs), predictions),
        **costs,
        **_quality(predictions),
        "n": method.n,
        "rounds": rounds,
        "prompt_tokens_mean": statistics.mean(len(question["ids"]) for question in questions),
        "prompts": len(questions),
        "proof": "equal tokens" if greedy else "law",
        "machine": machine or device,
        "backend": backend,
    }
    acceptance.write(out, metrics, predictions)


def _rounds(baseline, method, questions, rounds, warmup, seed):
    """Seconds by name, round and prompt, and the outputs, which are the same in every round: each prompt has its own seed.

    The two decoders take turns on each prompt and swap who goes first, so that a slow minute slows both.
    """
    decoders = {"autoregressive": baseline} | ({} if method is baseline else {"method": method})
    seconds = {name: [] for name in decoders}
    outputs = {name: [None] * len(questions) for name in decoders}
    for round_ in range(-warmup, rounds):
        spent = {name: [0.0] * len(questions) for name in decoders}
        for index, question in enumerate(questions):
            for name in list(decoders)[:: 1 if (round_ + index) % 2 else -1]:
                generate = partial(decoders[name].generate, question["ids"], question["most"])
                spent[name][index], outputs[name][index] = _timed(generate, seed + index)
        if round_ >= 0:
            for name in decoders:
                seconds[name].append(spent[name])
    return {"method": seconds["autoregressive"], **seconds}, {"method": outputs["autoregressive"], **outputs}


def _timed(generate, seed: int) -> tuple[float, Generation]:
    generator = torch.Generator().manual_seed(seed)
    start = time.perf_counter()
    generation = generate(generator)  # ends with tokens as Python numbers: nothing is left to run on the device
    return time.perf_counter() - start, generation


def _prove(questions, outputs) -> None:
    """Greedy decoding has one right answer, so a row counts only where every token of it is the target's own."""
    for question, ours, theirs in zip(questions, outputs["method"], outputs["autoregressive"]):
        if ours.tokens != theirs.tokens:
            pairs = enumerate(zip(ours.tokens, theirs.tokens))
            shorter = min(len(ours.tokens), len(theirs.tokens))
            position = next((index for index, (left, right) in pairs if left != right), shorter)
            raise ValueError(
                f"row refused: prompt {question['id']} differs from autoregression at new token {position}; "
                "near ties flip in low precision: set dtype=float32"
            )


def _costs(baseline, method, questions, generations, seed) -> dict[str, float]:
    """Draft and verification cost in steps of the target, timed one by one at a middling prompt and half its answer."""
    if method is baseline:
        return {"draft_cost": 0.0, "verify_cost": 1.0}
    order = sorted(range(len(questions)), key=lambda index: len(questions[index]["ids"] + generations[index].tokens))
    middle = order[len(order) // 2]
    tokens = generations[middle].tokens
    sequence = (questions[middle]["ids"] + tokens[: (len(tokens) + 1) // 2])[: method.target.positions - method.n]
    drafted = (sequence * method.n)[-method.n :]  # what is verified does not matter to the clock, its width does
    return _medians(baseline, method, sequence, drafted, torch.Generator().manual_seed(seed))


def _medians(baseline, method, sequence, drafted, generator) -> dict[str, float]:
    target, known = method.target, len(sequence) - 1
    q_nV = one_hot(torch.tensor(drafted, device=target.device), target.vocab, torch.float32)
    actions = {
        "step": lambda: baseline.step(sequence, generator),
        "verify": lambda: verify(method, sequence, drafted, q_nV, generator),
        "propose": lambda: method.propose(sequence, method.n, generator)[0],
    }
    for engine in method.engines:
        engine.begin(len(sequence) + method.n)
    times = {name: [] for name in actions}
    with torch.inference_mode():
        for name in [*actions] * COST_TURNS:
            for _ in range(COST_BLOCK):
                start = time.perf_counter()
                result = actions[name]()
                took = time.perf_counter() - start
                times[name].append(took / max(1, len(result)) if name == "propose" else took)
                for engine in method.engines:
                    engine.rollback(min(engine.length, known))
    step, wide, one_draft = map(statistics.median, times.values())
    return {"draft_cost": one_draft / step, "verify_cost": wide / step, "target_step_ms": 1000 * step}


def _measured(predictions: list[dict], n: int, costs: dict[str, float]) -> dict:
    """Speed and acceptance of some prompts, and the speedup that their acceptance and the costs predict."""
    counted = acceptance.counts(predictions)
    price = (counted["acceptance_rate"] or 0) / 100, n, costs["draft_cost"], costs["verify_cost"]
    return {**_speeds(predictions), **counted, "predicted_speedup": rates.predicted_speedup(*price)}


def _speeds(predictions: list[dict]) -> dict[str, float]:
    """Tokens per second of each round, and the paired ratio of each round: medians over the rounds."""
    def per_second(prefix: str) -> list[float]:
        tokens = sum(item[f"{prefix}new_tokens"] for item in predictions)
        return [tokens / sum(taken) for taken in zip(*(item[f"{prefix}seconds"] for item in predictions), strict=True)]

    ours, theirs = per_second(""), per_second("autoregressive_")
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return {
        "speedup": statistics.median(ratios),
        "tokens_per_s": statistics.median(ours),
        "autoregressive_tokens_per_s": statistics.median(theirs),
        "speedup_low": min(ratios),
        "speedup_high": max(ratios),
    }


def _quality(predictions: list[dict]) -> dict[str, float]:
    """Rouge-1 of both outputs: "without quality loss" is measured, not said."""

    def mean(name):
        return statistics.mean(rouge.score(item[name], item["reference"])["rouge1"] for item in predictions)

    return {"rouge1": mean("prediction"), "rouge1_autoregressive": mean("autoregressive")}
