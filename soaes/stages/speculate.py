"""Measure: what a decoder gains over one token a step, prompt by prompt and in pairs, with the proof that it may count.

Knows folders, the clock and the decoders' call form; how a decoder works stands in soaes.decode.
"""

import json
import statistics
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer

from soaes.data import chat
from soaes.data.chat import chat_tokenizer, tokenizer_digest
from soaes.data.jsonl import read_jsonl, write_jsonl
from soaes.decode.autoregressive import Autoregressive, next_token
from soaes.decode.backends import native
from soaes.decode.backends.base import ExternalGeneration, model_folders
from soaes.decode.base import Generation
from soaes.decode.costs import measure_costs
from soaes.decode.engine import Engine
from soaes.decode.prompts import select_prompts
from soaes.decode.sampling import warp
from soaes.decode.verify import bound, named
from soaes.metrics import acceptance as rates
from soaes.metrics import estimators, expected_acceptance, rouge
from soaes.metrics.acceptance import acceptance_metrics, by_task
from soaes.pipeline import validation
from soaes.pipeline.runtime import Execution


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
    backend: partial = partial(native.open_native),
    machine: str = "",
    library: str = "",
    warmup: int = 1,
) -> None:
    """Decode the first test questions of each task by `decode` and by autoregression, interleaved; write metrics and predictions.

    decode: a decoder's class with its own settings bound; sampling: temperature and top_p of both sides; prompts, max_new_tokens:
    by task; prediction: what the oracle says of this draft; backend: whose decoders, ours or another library's, autoregression included;
    warmup: rounds that are not counted; machine, library: what was measured on, for the recipe.
    """
    validation.check(rounds=rounds)
    tokenizer, eos = chat.chat_tokenizer(target)
    settings = {
        "eos": eos,
        "sampling": sampling,
        "dtype": dtype,
        "device": device,
        "threads": threads,
    }
    greedy = sampling["temperature"] == 0
    rule = bound(decode)
    with backend(decode, model_folders(target, draft, decode), **settings) as pair:
        questions = select_prompts(
            documents, tokenizer, prompts, max_new_tokens, pair.positions - pair.n - 1
        )
        rounds_of, outputs = _rounds(pair, questions, rounds, warmup, seed)
        if greedy:
            _prove(questions, outputs)
        costs = measure_costs(pair, questions, outputs["autoregressive"], seed)
    like_ours = (
        None
        if backend.func is native.open_native or not greedy
        else _like_ours(target, settings, questions, outputs["autoregressive"])
    )
    predictions = [
        _record(tokenizer, eos, question, rounds_of, outputs, at)
        for at, question in enumerate(questions)
    ]
    metrics = {
        **by_task(partial(_measured, costs=costs), predictions),
        **costs,
        **predicted(prediction, pair.n, costs),
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
    write_metrics(out, metrics, predictions)


def _rounds(pair, questions, rounds, warmup, seed):
    """(seconds, new tokens) by name, round and prompt, and the last outputs. Each prompt has its own seed: all rounds write one text, unless
    drafting adapts to what it has seen.

    The two decoders take turns on each prompt and swap who goes first, so that a slow minute slows both.
    """
    decoders = {"autoregressive": pair.baseline} | (
        {} if pair.method is pair.baseline else {"method": pair.method}
    )
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
    return {"method": taken["autoregressive"], **taken}, {
        "method": outputs["autoregressive"],
        **outputs,
    }


def _record(tokenizer, eos, question, rounds_of, outputs, at) -> dict:
    """A prompt's line of predictions.jsonl: both outputs, and both sides' time in each round."""
    plain = outputs["autoregressive"][at]
    return {
        **prediction_record(tokenizer, eos, question, outputs["method"][at]),
        **_clocked("", rounds_of["method"], at),
        **_clocked("autoregressive_", rounds_of["autoregressive"], at),
        "autoregressive": answer_text(tokenizer, eos, plain),
        "autoregressive_new_tokens": len(plain.tokens),
    }


def _clocked(side: str, of_rounds: list[list[tuple[float, int]]], at: int) -> dict[str, list]:
    """A prompt's seconds and new tokens in each round."""
    seconds, tokens = zip(*(of_prompts[at] for of_prompts in of_rounds), strict=True)
    return {f"{side}seconds": list(seconds), f"{side}round_tokens": list(tokens)}


def _timed(generate, seed: int) -> tuple[float, Generation]:
    generator = torch.Generator().manual_seed(seed)
    start = time.perf_counter()
    generation = generate(
        generator
    )  # ends with tokens as Python numbers: nothing is left to run on the device
    took = time.perf_counter() - start
    return getattr(
        generation, "seconds", None
    ) or took, generation  # a library in a process of its own has its own clock


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
    with native.open_native(partial(Autoregressive), {"target": target}, **settings) as ours:
        pairs = zip(questions, generations, strict=True)
        same = [
            ours.method.generate(question["ids"], question["most"], torch.Generator()).tokens
            == made.tokens
            for question, made in pairs
        ]
    return 100 * statistics.mean(same)


def _measured(predictions: list[dict], costs: dict) -> dict:
    """Speed and acceptance of some prompts, the speedup that their counts and the costs account for, and the quotient of the two."""
    speeds, predicted = _speeds(predictions), rates.accounted_speedup(predictions, costs)
    accounted = {
        "predicted_speedup": predicted,
        "measured_over_predicted": speeds["speedup"] / predicted if predicted else None,
    }
    return {**speeds, **acceptance_metrics(predictions), **accounted}


def _speeds(predictions: list[dict]) -> dict[str, float]:
    """Medians over rounds of both sides' tokens per second and of their ratio, and its range."""
    metrics = {name: metric.value() for name, metric in estimators.speeds(predictions).items()}
    ratios = estimators.speedup(predictions).by_round()
    return {**metrics, "speedup_low": min(ratios), "speedup_high": max(ratios)}


def _quality(predictions: list[dict]) -> dict[str, float]:
    """Rouge-1 of both outputs: "without quality loss" is measured, not said."""

    def mean(name):
        return statistics.mean(
            rouge.score(item[name], item["reference"])["rouge1"] for item in predictions
        )

    return {"rouge1": mean("prediction"), "rouge1_autoregressive": mean("autoregressive")}


def acceptance(
    target: Path,
    documents: Path,
    *,
    decode: partial,
    sampling: dict[str, float],
    prompts: dict[str, int],
    max_new_tokens: dict[str, int],
    seed: int,
    dtype: str,
    out: Path,
    draft: Path | None = None,
    prediction: Path | None = None,
    execution: Execution = Execution(),
) -> None:
    """Decode the first test questions of each task by `decode`; write acceptance by its readings, and predictions.

    decode: a decoder's class with its own settings bound; prompts, max_new_tokens: by task (qa, report); prediction: what the oracle says
    of this draft, to stand beside.
    """
    tokenizer, eos = chat_tokenizer(target)
    models = model_folders(target, draft, decode)
    with native.open_native(
        decode,
        models,
        eos=eos,
        sampling=sampling,
        dtype=dtype,
        device=execution.device,
        threads=execution.threads,
    ) as pair:
        asked = select_prompts(
            documents, tokenizer, prompts, max_new_tokens, pair.positions - pair.n - 1
        )
        made = [
            pair.method.generate(
                question["ids"], question["most"], torch.Generator().manual_seed(seed + index)
            )
            for index, question in enumerate(asked)
        ]
    predictions = [
        prediction_record(tokenizer, eos, *both) for both in zip(asked, made, strict=True)
    ]
    scores = {
        "rouge1": statistics.mean(
            rouge.score(item["prediction"], item["reference"])["rouge1"] for item in predictions
        )
    }
    told = {"n": pair.n, "prompts": len(asked), "rule": named(bound(decode))}
    write_metrics(
        out,
        {
            **by_task(acceptance_metrics, predictions),
            **told,
            **scores,
            **predicted(prediction, pair.n),
        },
        predictions,
    )


def predicted(prediction: Path | None, n: int, costs: dict | None = None) -> dict[str, float]:
    """What the oracle said from other prompts, without the target: tokens a step and, with costs, the speedup of decoding alone."""
    if prediction is None:
        return {}
    told = json.loads((prediction / "metrics.json").read_text(encoding="utf-8"))
    if f"mean_acceptance_length_n{n}" not in told:
        raise ValueError(
            f"{prediction} has no prediction for n={n}; set predict_acceptance.max_n={n}"
        )
    tokens, drafted = told[f"mean_acceptance_length_n{n}"], told[f"drafted_per_block_n{n}"]
    found = {"expected_acceptance_length": tokens}
    if costs is None or costs["draft_cost"] is None:
        return found
    return found | {
        "expected_speedup": expected_acceptance.speedup(
            tokens, 1, drafted, costs["draft_cost"], costs["verify_cost"]
        )
    }


def prediction_record(tokenizer: Tokenizer, eos: int, question: dict, ours: Generation) -> dict:
    """One prompt's line of predictions.jsonl."""
    return {
        "id": question["id"],
        "task": question["task"],
        "prompt": question["messages"][-2]["content"],
        "reference": question["messages"][-1]["content"],
        "prediction": answer_text(tokenizer, eos, ours),
        "new_tokens": len(ours.tokens),
        "steps": ours.steps,
        "drafted": ours.drafted,
        "accepted": ours.accepted,
        "overlap": ours.overlap,
        "tests_per_position": ours.tests_per_position,
        "accepts_per_position": ours.accepts_per_position,
    } | (
        {"prefixes_per_position": ours.prefixes_per_position}
        if isinstance(ours, ExternalGeneration)
        else {}
    )


def answer_text(tokenizer: Tokenizer, eos: int, made: Generation) -> str:
    return tokenizer.decode([token for token in made.tokens if token != eos])


def write_metrics(out: Path, metrics: dict, predictions: list[dict]) -> None:
    write_jsonl(out / "predictions.jsonl", predictions)
    (out / "metrics.json").write_text(
        json.dumps(metrics, ensure_ascii=False, indent=1), encoding="utf-8"
    )


class Nuclei(NamedTuple):
    """The target's distributions: token t of a text has sizes_T[t] entries, each a token of ids_S with its probability p_S."""

    sizes_T: np.ndarray
    ids_S: np.ndarray
    p_S: np.ndarray


def target_trace(
    target: Path,
    documents: Path,
    *,
    sampling: dict[str, float],
    prompts: dict[str, int],
    max_new_tokens: dict[str, int],
    seed: int,
    dtype: str,
    out: Path,
    split: str = "dev",
    execution: Execution = Execution(),
) -> None:
    """Let the target answer the first questions of each task of a split; write its tokens and, for each, the distribution it was drawn from.

    sampling: temperature and top_p; prompts, max_new_tokens: by task (qa, report), as `acceptance` takes them.
    """
    validation.check(split=split)
    torch.set_num_threads(execution.threads)
    tokenizer, eos = chat.chat_tokenizer(target)
    engine = _engine(target, dtype, execution)
    asked = select_prompts(documents, tokenizer, prompts, max_new_tokens, engine.positions, split)
    said = [
        _say(engine, question, eos, sampling, torch.Generator().manual_seed(seed + at))
        for at, question in enumerate(asked)
    ]
    texts = [
        {
            "id": question["id"],
            "task": question["task"],
            "prompt": question["messages"][-2]["content"],
            "most": question["most"],
            "prompt_ids": question["ids"],
            "tokens": tokens,
        }
        for question, (tokens, _) in zip(asked, said, strict=True)
    ]
    nuclei = Nuclei(
        *(np.concatenate(parts) for parts in zip(*(of_text for _, of_text in said), strict=True))
    )
    contract = {
        "sampling": dict(sampling),
        "dtype": dtype,
        "tokenizer": tokenizer_digest(target),
        "vocabulary": engine.vocab,
    }
    _write(out, contract, texts, nuclei)


def predict_acceptance(
    target_trace: Path, draft: Path, *, max_n: int, out: Path, execution: Execution = Execution()
) -> None:
    """What `draft` would gain on the texts of a signal at n = 1 .. max_n: one forward of the draft a text; write metrics and a line a prompt.

    Sampling and dtype are the signal's."""
    validation.check(n=max_n)
    n = list(range(1, max_n + 1))
    torch.set_num_threads(execution.threads)
    contract = json.loads((target_trace / "contract.json").read_text(encoding="utf-8"))
    engine = _engine(draft, contract["dtype"], execution)
    _agree(contract, target_trace, draft, engine)
    texts, nuclei = (
        read_jsonl(target_trace / "texts.jsonl"),
        Nuclei(**np.load(target_trace / "nuclei.npz")),
    )
    of_texts = _by_text(nuclei, [len(text["tokens"]) for text in texts])
    lines = [
        _line(text, *judge(engine, text, one, contract["sampling"]), n)
        for text, one in zip(texts, of_texts, strict=True)
    ]
    write_metrics(
        out, by_task(lambda some: _metrics(some, n), lines) | {"prompts": len(lines)}, lines
    )


@torch.inference_mode()
def judge(
    engine: Engine, text: dict, nuclei: Nuclei, sampling: dict[str, float]
) -> tuple[np.ndarray, np.ndarray]:
    """(r_T, overlap_T) of one text: min(1, q/p) of its own tokens, and sum min(p, q), at every position.

    Exact but for rounding: the draft reads the text at once, in decoding token by token.
    """
    tokens_T = torch.tensor(text["tokens"])
    ids = text["prompt_ids"] + text["tokens"][:-1]
    engine.begin(len(ids))
    logits_TV = engine.forward(torch.tensor(ids, device=engine.device), tail=len(tokens_T))
    q_TV = warp(logits_TV, **sampling).double().cpu().numpy()
    rows_S = np.repeat(np.arange(len(tokens_T)), nuclei.sizes_T)
    q_S, p_S = q_TV[rows_S, nuclei.ids_S], nuclei.p_S.astype(np.float64)
    said_S = (
        nuclei.ids_S == tokens_T.numpy()[rows_S]
    )  # once a row: a token is drawn from its nucleus
    return np.minimum(1, q_S[said_S] / p_S[said_S]), np.bincount(
        rows_S, np.minimum(p_S, q_S), len(tokens_T)
    )


@torch.inference_mode()
def _say(
    engine: Engine, question: dict, eos: int, sampling: dict[str, float], generator: torch.Generator
) -> tuple[list[int], Nuclei]:
    """An answer as Autoregressive gives it, with what each token was drawn from."""
    tokens, sizes, ids, chances = [], [], [], []
    engine.begin(len(question["ids"]) + question["most"])
    while len(tokens) < question["most"] and eos not in tokens[-1:]:
        token, p_V = next_token(engine, question["ids"] + tokens, **sampling, generator=generator)
        kept = (
            torch.tensor([token]) if p_V is None else p_V.nonzero()[:, 0].cpu()
        )  # None: greedy, all mass on one token
        tokens.append(token)
        sizes.append(len(kept))
        ids.append(kept.numpy())
        chances.append(np.ones(1) if p_V is None else p_V.cpu()[kept].numpy())
    return tokens, Nuclei(
        np.array(sizes, np.int32),
        np.concatenate(ids).astype(np.int32),
        np.concatenate(chances).astype(np.float32),
    )


def _engine(folder: Path, dtype: str, execution: Execution) -> Engine:
    return Engine(native.load(folder, dtype, execution.device))


def _write(out: Path, contract: dict, texts: list[dict], nuclei: Nuclei) -> None:
    tokens, stored = len(nuclei.sizes_T), sum(array.nbytes for array in nuclei)
    metrics = {
        "prompts": len(texts),
        "new_tokens_mean": tokens / len(texts),
        "nucleus_mean": len(nuclei.ids_S) / tokens,
        "bytes_per_token": stored / tokens,
    }
    write_jsonl(out / "texts.jsonl", texts)
    np.savez(out / "nuclei.npz", **nuclei._asdict())
    (out / "contract.json").write_text(json.dumps(contract), encoding="utf-8")
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1), encoding="utf-8")


def _agree(contract: dict, signal: Path, draft: Path, engine: Engine) -> None:
    """A signal speaks of token ids: the draft's must mean the same."""
    if (found := tokenizer_digest(draft)) != contract["tokenizer"]:
        raise ValueError(
            f"{signal} was written with tokenizer {contract['tokenizer']}, draft {draft} has {found}; train both with one"
        )
    if engine.vocab != contract["vocabulary"]:
        raise ValueError(
            f"draft {draft} has a vocabulary of {engine.vocab:,}, the target of {signal} one of {contract['vocabulary']:,}; "
            "take a draft with as many rows"
        )


def _by_text(nuclei: Nuclei, lengths: list[int]) -> list[Nuclei]:
    ends = np.cumsum(lengths)[:-1]
    of_entries = np.cumsum(nuclei.sizes_T)[ends - 1]
    return [
        Nuclei(*parts)
        for parts in zip(
            np.split(nuclei.sizes_T, ends),
            np.split(nuclei.ids_S, of_entries),
            np.split(nuclei.p_S, of_entries),
        )
    ]


def _line(text: dict, r_T: np.ndarray, overlap_T: np.ndarray, n: list[int]) -> dict:
    """One prompt's line of predictions.jsonl: the expectations by n."""
    found = {one: expected_acceptance.expected(r_T, one, text["most"]) for one in n}
    return {
        **{name: text[name] for name in ("id", "task", "prompt")},
        "new_tokens": len(r_T),
        "overlap": float(overlap_T.sum()),
        **{
            f"expected_{name}": {one: getattr(found[one], name) for one in n}
            for name in expected_acceptance.Expected._fields
        },
    }


def _metrics(lines: list[dict], n: list[int]) -> dict:
    """Of the texts, with each token counted once: the overlap in per cent. `acceptance` measures it over the drafted positions, which are
    others: no bonus, and what follows a rejected token. Of the blocks at each n: tokens a step, accepted and at most drafted tokens."""
    tokens = sum(line["new_tokens"] for line in lines)
    found = {
        "overlap_on_text": rates.mean_overlap(sum(line["overlap"] for line in lines), tokens),
        "new_tokens_mean": tokens / len(lines),
    }
    for one in n:
        steps, accepted, drafted = (
            sum(line[f"expected_{name}"][one] for line in lines)
            for name in ("steps", "accepted", "drafted")
        )
        found |= {
            f"mean_acceptance_length_n{one}": rates.mean_acceptance_length(tokens, steps),
            f"accepted_per_block_n{one}": accepted / steps,
            f"drafted_per_block_n{one}": drafted / steps,
        }
    return found
