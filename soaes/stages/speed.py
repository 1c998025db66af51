"""Measure: what a decoder gains over one token a step, prompt by prompt and in pairs, with the proof that it may count.

Knows folders, the clock and the decoders' call form; how a decoder works stands in soaes.decode.
"""

import statistics
import time
from functools import partial
from pathlib import Path

import torch

from soaes import limits
from soaes.backends import native
from soaes.backends.pair import folders
from soaes.decode.autoregressive import Autoregressive
from soaes.decode.generation import Generation
from soaes.decode.verify import bound, named
from soaes.metrics import acceptance as rates
from soaes.metrics import rouge
from soaes.stages import acceptance
from soaes.stages import costs as block_costs


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
    prediction: Path | None = None,
    backend: partial = partial(native.open),
    machine: str = "",
    library: str = "",
    warmup: int = 1,
) -> None:
    """Decode the first test questions of each task by `decode` and by autoregression, interleaved; write metrics and predictions.

    decode: a decoder's class with its own settings bound; sampling: temperature and top_p of both sides; prompts, max_new_tokens:
    by task; prediction: what the oracle says of this draft; backend: whose decoders, ours or another library's, autoregression included;
    warmup: rounds that are not counted; machine, library: what was measured on, for the recipe.
    """
    limits.check(rounds=rounds)
    tokenizer, eos = acceptance.chat_tokenizer(target)
    settings = {"eos": eos, "sampling": sampling, "dtype": dtype, "device": device, "threads": threads}
    greedy = sampling["temperature"] == 0
    rule = bound(decode)
    with backend(decode, folders(target, draft, decode), **settings) as pair:
        questions = acceptance.questions(documents, tokenizer, prompts, max_new_tokens, pair.positions - pair.n - 1)
        rounds_of, outputs = _rounds(pair, questions, rounds, warmup, seed)
        if greedy:
            _prove(questions, outputs)
        costs = block_costs.costs(pair, questions, outputs["autoregressive"], seed)
    like_ours = None if backend.func is native.open or not greedy else _like_ours(target, settings, questions, outputs["autoregressive"])
    predictions = [_record(tokenizer, eos, question, rounds_of, outputs, at) for at, question in enumerate(questions)]
    metrics = {
        **acceptance.by_task(partial(_measured, costs=costs), predictions),
        **costs,
        **acceptance.foretold(prediction, pair.n, costs),
        **_quality(predictions),
        "n": pair.n,
        "rounds": rounds,
        "prompt_tokens_mean": statistics.mean(len(question["ids"]) for question in questions),
        "prompts": len(questions),
        "rule": named(rule),
        "proof": "equal tokens" if greedy else "law" if rule is None or rule.exact else "biased",
        "like_native": like_ours,
        "machine": machine or device,
        "library": library,
    }
    acceptance.write(out, metrics, predictions)


def _rounds(pair, questions, rounds, warmup, seed):
    """(seconds, new tokens) by name, round and prompt, and the last outputs. Each prompt has its own seed: all rounds write one text, unless
    drafting adapts to what it has seen.

    The two decoders take turns on each prompt and swap who goes first, so that a slow minute slows both.
    """
    decoders = {"autoregressive": pair.baseline} | ({} if pair.method is pair.baseline else {"method": pair.method})
    taken = {name: [] for name in decoders}
    outputs = {name: [None] * len(questions) for name in decoders}
    for round_ in range(-warmup, rounds):
        spent = {name: [(0.0, 0)] * len(questions) for name in decoders}
        for index, question in enumerate(questions):
            for name in list(decoders)[:: 1 if (round_ + index) % 2 else -1]:
                generate = partial(decoders[name].generate, question["ids"], question["most"])
                seconds, outputs[name][index] = _timed(generate, seed + index)
                spent[name][index] = seconds, len(outputs[name][index].tokens)
        if round_ >= 0:
            for name in decoders:
                taken[name].append(spent[name])
    return {"method": taken["autoregressive"], **taken}, {"method": outputs["autoregressive"], **outputs}


def _record(tokenizer, eos, question, rounds_of, outputs, at) -> dict:
    """A prompt's line of predictions.jsonl: both outputs, and both sides' time in each round."""
    plain = outputs["autoregressive"][at]
    return {
        **acceptance.record(tokenizer, eos, question, outputs["method"][at]),
        **_clocked("", rounds_of["method"], at),
        **_clocked("autoregressive_", rounds_of["autoregressive"], at),
        "autoregressive": acceptance.text(tokenizer, eos, plain),
        "autoregressive_new_tokens": len(plain.tokens),
    }


def _clocked(side: str, of_rounds: list[list[tuple[float, int]]], at: int) -> dict[str, list]:
    """A prompt's seconds and new tokens in each round."""
    seconds, tokens = zip(*(of_prompts[at] for of_prompts in of_rounds), strict=True)
    return {f"{side}seconds": list(seconds), f"{side}round_tokens": list(tokens)}


def _timed(generate, seed: int) -> tuple[float, Generation]:
    generator = torch.Generator().manual_seed(seed)
    start = time.perf_counter()
    generation = generate(generator)  # ends with tokens as Python numbers: nothing is left to run on the device
    took = time.perf_counter() - start
    return getattr(generation, "seconds", None) or took, generation  # a library in a process of its own has its own clock


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


def _like_ours(target, settings, questions, generations) -> float:
    """Per cent of the prompts on which another library's greedy baseline writes what ours does: rounding may settle a near tie otherwise."""
    with native.open(partial(Autoregressive), {"target": target}, **settings) as ours:
        pairs = zip(questions, generations, strict=True)
        same = [ours.method.generate(question["ids"], question["most"], torch.Generator()).tokens == made.tokens for question, made in pairs]
    return 100 * statistics.mean(same)


def _measured(predictions: list[dict], costs: dict) -> dict:
    """Speed and acceptance of some prompts, the speedup that their counts and the costs account for, and the quotient of the two."""
    speeds, predicted = _speeds(predictions), rates.accounted_speedup(predictions, costs)
    accounted = {"predicted_speedup": predicted, "measured_over_predicted": speeds["speedup"] / predicted if predicted else None}
    return {**speeds, **acceptance.counts(predictions), **accounted}


def _speeds(predictions: list[dict]) -> dict[str, float]:
    """Tokens per second of each round, and the paired ratio of each round: medians over the rounds."""
    def per_second(prefix: str) -> list[float]:
        sums = ([sum(of_round) for of_round in zip(*(item[f"{prefix}{name}"] for item in predictions), strict=True)]
                for name in ("round_tokens", "seconds"))  # fmt: skip
        return [tokens / taken for tokens, taken in zip(*sums, strict=True)]

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
