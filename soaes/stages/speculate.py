"""Stages that measure a decoder: how much it accepts, and what it gains over autoregression.

`acceptance` counts; `speed` times the decoder and autoregression in pairs, prompt by prompt, and
proves that the output may count. Knows folders, the clock and the decoders' interface; how a
decoder works is in soaes.decode.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from transformers import PreTrainedModel

from soaes.data import chat
from soaes.data.chat import AnyTokenizer
from soaes.decode.autoregressive import Autoregressive
from soaes.decode.backends import native
from soaes.decode.backends.base import (
    Backend,
    BackendSettings,
    DecoderPair,
    ExternalGeneration,
    model_folders,
    positions_of,
)
from soaes.decode.backends.native import NativePair, open_native
from soaes.decode.base import Decoder, EngineDecoder, Generation
from soaes.decode.batch import Request, generate_all
from soaes.decode.costs import measure_costs
from soaes.decode.engine import Engine
from soaes.decode.near_ties import Target, count_near_ties
from soaes.decode.prompts import Prompt, Selection, select_prompts
from soaes.decode.settings import DecoderSettings, SamplingSettings
from soaes.decode.verify import RULES
from soaes.metrics import estimators, expected_acceptance, rouge
from soaes.metrics.acceptance import (
    MeasuredCosts,
    Metrics,
    Prediction,
    acceptance_metrics,
    accounted_speedup,
    by_task,
    cost_metrics,
)
from soaes.metrics.schema import write_metrics, write_predictions
from soaes.pipeline.runtime import Execution
from soaes.pipeline.validation import check_whole

# ---------------------------------------------------------------- acceptance


def acceptance(
    target: Path,
    documents: Path,
    *,
    decode: DecoderSettings,
    sampling: SamplingSettings,
    prompts: dict[str, int],
    max_new_tokens: dict[str, int],
    seed: int,
    dtype: str,
    out: Path,
    draft: Path | None = None,
    prediction: Path | None = None,
    sample_seed: int = 0,
    execution: Execution = Execution(),
) -> None:
    """Decode test questions of each task; write acceptance metrics and predictions.

    Args:
        target: Folder of the target model.
        documents: Folder with qa/test.jsonl.
        decode: The decoder.
        sampling: Temperature and top-p of both models.
        prompts: Task (qa, report) -> prompts to decode.
        max_new_tokens: Task -> tokens of an answer at most.
        seed: Prompt i draws from seed + i.
        dtype: float32, bfloat16 or float16.
        out: The stage's folder.
        draft: Folder of the draft model, for a decoder that uses one.
        prediction: Folder of `predict_acceptance` for this draft, reported beside.
        sample_seed: Draws the prompts. It is not the run's seed, so that all runs decode the same.
        execution: Device and threads.

    Raises:
        ValueError: The models do not go together, or there are too few prompts that fit.
    """
    tokenizer, eos = chat.chat_tokenizer(target)
    settings = BackendSettings(decode, sampling, eos, dtype, execution.device, execution.threads)
    with open_native(model_folders(target, draft, decode), settings) as pair:
        room = pair.positions - pair.n - 1
        selected, num_skipped = _select(
            documents, tokenizer, prompts, max_new_tokens, room, sample_seed
        )
        requests = [_request(prompt, seed + index) for index, prompt in enumerate(selected)]
        generations = generate_all(pair.method, requests, decode.batch)
    rows = [
        _prediction_row(tokenizer, eos, prompt, generation)
        for prompt, generation in zip(selected, generations, strict=True)
    ]
    metrics = {
        **by_task(acceptance_metrics, rows),
        "n": pair.n,
        "prompts": len(rows),
        "num_skipped": num_skipped,
        "rule": _rule_label(decode),
        "rouge1": _mean_rouge1(rows, "prediction"),
        **_expected_metrics(prediction, pair.n),
    }
    write_predictions(out, rows)
    write_metrics(out, metrics)


# ---------------------------------------------------------------- speed


def speed(
    target: Path,
    documents: Path,
    *,
    decode: DecoderSettings,
    sampling: SamplingSettings,
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
    backend: Backend = open_native,
    machine: str = "",
    library: str = "",
    warmup: int = 1,
    sample_seed: int = 0,
) -> None:
    """Time a decoder against autoregression on test questions of each task.

    Writes metrics and predictions. Under greedy decoding the output must be the target's own,
    token by token but for near ties, see soaes.decode.near_ties.

    Args:
        target: Folder of the target model.
        documents: Folder with qa/test.jsonl.
        decode: The decoder.
        sampling: Temperature and top-p of both sides.
        prompts: Task (qa, report) -> prompts to decode.
        max_new_tokens: Task -> tokens of an answer at most.
        rounds: Timed rounds over all prompts, at least 3.
        seed: Prompt i draws from seed + i in every round.
        threads: CPU threads.
        dtype: float32, bfloat16 or float16.
        out: The stage's folder.
        draft: Folder of the draft model, for a decoder that uses one.
        device: cpu or cuda.
        prediction: Folder of `predict_acceptance` for this draft, reported beside.
        backend: Opens the decoders, ours or another library's, autoregression included.
        machine: What the clock runs on; recorded in recipe and metrics.
        library: Library and version that decodes; recorded likewise.
        warmup: Rounds before the timed ones, not counted.
        sample_seed: Draws the prompts, as in `acceptance`.

    Raises:
        ValueError: A setting is out of range, the models do not go together, there are too few
            prompts that fit, or a greedy output is not the target's own.
    """
    check_whole("rounds", rounds, 3, "a speed is the median over rounds")
    tokenizer, eos = chat.chat_tokenizer(target)
    folders = model_folders(target, draft, decode)
    positions = positions_of(folders)

    def select(positions: int) -> Selection:
        room = positions - decode.n - 1
        return _select(documents, tokenizer, prompts, max_new_tokens, room, sample_seed)

    selected, num_skipped = select(positions)
    longest = max(len(prompt.ids) + prompt.max_new_tokens for prompt in selected) + decode.n + 1
    settings = BackendSettings(decode, sampling, eos, dtype, device, threads, longest)
    with backend(folders, settings) as pair:
        if pair.positions < positions:  # the backend reads less than the models
            selected, num_skipped = select(pair.positions)
        method, baseline = _time_rounds(pair, selected, rounds, warmup, seed, decode.batch)
        proof = _law(decode)
        if sampling.greedy and isinstance(pair, NativePair):
            engine_target = _engine_target(pair.baseline.target)
            proof = _equal_tokens(engine_target, settings, selected, method, baseline)
        costs = None
        if decode.batch == 1:  # a block's costs are those of one text
            prompt_ids = [prompt.ids for prompt in selected]
            costs = measure_costs(pair, prompt_ids, baseline.generations, seed)
    like_native = None
    if sampling.greedy and not isinstance(pair, NativePair):
        model = native.load(target, dtype, device)
        proof = _equal_tokens(_model_target(model), settings, selected, method, baseline)
        like_native = _like_native(model, settings, selected, baseline.generations)
    rows = [
        _speed_row(tokenizer, eos, prompt, index, method, baseline)
        for index, prompt in enumerate(selected)
    ]
    for row, near_ties in zip(rows, proof.near_ties):
        row["near_ties"] = near_ties

    def metrics_of(some: Sequence[Prediction]) -> Metrics:
        return _speed_and_acceptance(some, costs)

    metrics = {
        **by_task(metrics_of, rows),
        **cost_metrics(costs),
        **_expected_metrics(prediction, pair.n, costs),
        "rouge1": _mean_rouge1(rows, "prediction"),
        "rouge1_autoregressive": _mean_rouge1(rows, "autoregressive"),
        "n": pair.n,
        "rounds": rounds,
        "prompt_tokens_mean": statistics.mean(len(prompt.ids) for prompt in selected),
        "prompts": len(selected),
        "num_skipped": num_skipped,
        "rule": _rule_label(decode),
        **proof.metrics(rows),
        "like_native": like_native,
        "machine": machine or device,
        "library": library,
    }
    write_predictions(out, rows)
    write_metrics(out, metrics)


class Timing(NamedTuple):
    """One decoding of one prompt."""

    seconds: float  # wall time; of texts that are decoded together, a share by their steps
    tokens: int  # new tokens


@dataclass(frozen=True)
class TimedDecoder:
    """What one decoder did in all rounds."""

    timings: list[list[Timing]]  # by round and prompt
    generations: list[Generation]  # of the last round, by prompt


def _time_rounds(
    pair: DecoderPair, prompts: list[Prompt], rounds: int, warmup: int, seed: int, batch: int
) -> tuple[TimedDecoder, TimedDecoder]:
    """Decode all prompts by method and baseline, round by round.

    The two take turns on each prompt, or on the prompts of each task if several are decoded
    together, and swap who goes first, so that a slow minute slows both.
    Each prompt has its own seed: all rounds write one text, unless drafting adapts to what it has
    seen. Under autoregression the method is the baseline, and runs once.
    """
    decoders: dict[str, Decoder] = {"baseline": pair.baseline}
    if pair.method is not pair.baseline:
        decoders["method"] = pair.method
    turns = [[index] for index in range(len(prompts))]
    if batch > 1:
        turns = _indices_by_task(prompts)
    timings: dict[str, list[list[Timing]]] = {name: [] for name in decoders}
    generations: dict[str, list[Generation]] = {}
    for round_ in range(-warmup, rounds):
        outputs: dict[str, list[Generation]] = {name: [] for name in decoders}
        round_timings: dict[str, list[Timing]] = {name: [] for name in decoders}
        for turn, indices in enumerate(turns):
            order = list(decoders)
            if (round_ + turn) % 2 == 0:
                order.reverse()
            for name in order:
                requests = [_request(prompts[index], seed + index) for index in indices]
                for seconds, generation in _time(decoders[name], requests, batch):
                    outputs[name].append(generation)
                    round_timings[name].append(Timing(seconds, len(generation.tokens)))
        generations = outputs
        if round_ >= 0:
            for name in decoders:
                timings[name].append(round_timings[name])
    baseline = TimedDecoder(timings["baseline"], generations["baseline"])
    if "method" not in decoders:
        return baseline, baseline
    return TimedDecoder(timings["method"], generations["method"]), baseline


def _indices_by_task(prompts: list[Prompt]) -> list[list[int]]:
    """The indices of each task's prompts; those of a task stand together."""
    by_task: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_task.setdefault(prompt.task, []).append(index)
    return list(by_task.values())


def _time(decoder: Decoder, requests: list[Request], batch: int) -> list[tuple[float, Generation]]:
    """Decode prompts; seconds and output of each. A library in a process has its own clock."""
    start = time.perf_counter()
    # the decoding before ended with tokens as Python numbers, as this one does: nothing is left to
    # run on the device
    if batch == 1:
        generations = [decoder.generate(*request) for request in requests]
    else:
        generations = generate_all(cast(EngineDecoder, decoder), requests, batch)
    elapsed = time.perf_counter() - start
    steps = sum(generation.steps for generation in generations)
    decodings = []
    for generation in generations:
        seconds = getattr(generation, "seconds", None) or elapsed * (generation.steps / steps)
        decodings.append((seconds, generation))
    return decodings


@dataclass(frozen=True)
class Proof:
    """Why a row's output may count."""

    reason: str  # see `schema.SpeedMetrics`
    near_ties: tuple[int, ...] = ()  # under greedy decoding: tokens decided by one, by prompt

    def metrics(self, predictions: Sequence[Prediction]) -> Metrics:
        """Return its entries of metrics.json: the reason, and shares in per cent."""
        answers = tokens = None
        if self.near_ties:
            answers = 100 * statistics.mean(count > 0 for count in self.near_ties)
            new_tokens = sum(prediction["new_tokens"] for prediction in predictions)
            tokens = 100 * sum(self.near_ties) / new_tokens
        return {"proof": self.reason, "near_tie_answers": answers, "near_tie_tokens": tokens}


def _law(decode: DecoderSettings) -> Proof:
    """Of sampled output: the rule's law; `biased` for a rule that has none."""
    is_exact = decode.rule is None or RULES[decode.rule].exact
    return Proof("law" if is_exact else "biased")


def _equal_tokens(
    target: Target,
    settings: BackendSettings,
    prompts: list[Prompt],
    method: TimedDecoder,
    baseline: TimedDecoder,
) -> Proof:
    """Of greedy output: it is the target's own, but for near ties; ValueError if it is not."""
    near_ties = tuple(
        count_near_ties(
            target, prompt, output.tokens, reference.tokens, settings.eos, settings.dtype
        )
        for prompt, output, reference in zip(
            prompts, method.generations, baseline.generations, strict=True
        )
    )
    return Proof("equal tokens but for near ties" if any(near_ties) else "equal tokens", near_ties)


def _engine_target(engine: Engine) -> Target:
    """The target as our own forward reads it."""

    def logits(ids: list[int], tail: int) -> torch.Tensor:
        engine.begin(len(ids))
        return engine.forward(torch.tensor(ids, device=engine.device), tail=tail)

    return Target(logits, terms=max(len(matrix.plain) for matrix in engine.matrices))


def _model_target(model: PreTrainedModel) -> Target:
    """The target as the model's own forward reads it, whichever its family."""

    def logits(ids: list[int], tail: int) -> torch.Tensor:
        ids_1T = torch.tensor([ids], device=model.device)
        output = model(input_ids=ids_1T, use_cache=False, logits_to_keep=tail)
        logits_TV: torch.Tensor = output.logits[0]
        return logits_TV

    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    return Target(logits, terms=max(matrix.shape[-1] for matrix in matrices))


def _like_native(
    model: PreTrainedModel,
    settings: BackendSettings,
    prompts: list[Prompt],
    baseline: list[Generation],
) -> float | None:
    """Per cent of the prompts on which another library's greedy baseline writes what ours writes.

    Rounding may settle a near tie in another way. None for a family that we do not decode.
    """
    try:
        engine = Engine(model)
    except ValueError:
        return None
    ours = Autoregressive(engine, settings.sampling.temperature, 1.0, settings.eos)
    equal = []
    for prompt, generation in zip(prompts, baseline, strict=True):
        own = ours.generate(prompt.ids, prompt.max_new_tokens, torch.Generator())
        equal.append(own.tokens == generation.tokens)
    return 100 * statistics.mean(equal)


def _speed_and_acceptance(
    predictions: Sequence[Prediction], costs: MeasuredCosts | None
) -> Metrics:
    """Speed and acceptance of some prompts, and the speedup that counts and costs account for."""
    metrics: Metrics = {**_speeds(predictions), **acceptance_metrics(predictions)}
    predicted = accounted_speedup(predictions, costs)
    metrics["predicted_speedup"] = predicted
    metrics["measured_over_predicted"] = metrics["speedup"] / predicted if predicted else None
    return metrics


def _speeds(predictions: Sequence[Prediction]) -> Metrics:
    """Medians over rounds of both sides' tokens per second and of their ratio, and its range."""
    metrics: Metrics = {
        name: metric.value() for name, metric in estimators.speeds(predictions).items()
    }
    ratios = estimators.speedup(predictions).by_round()
    return metrics | {"speedup_low": min(ratios), "speedup_high": max(ratios)}


# ---------------------------------------------------------------- shared by both


def _request(prompt: Prompt, seed: int) -> Request:
    """A prompt with random numbers of its own."""
    return Request(prompt.ids, prompt.max_new_tokens, torch.Generator().manual_seed(seed))


def _select(
    documents: Path,
    tokenizer: AnyTokenizer,
    prompts: dict[str, int],
    max_new_tokens: dict[str, int],
    room: int,
    sample_seed: int,
) -> Selection:
    """The prompts that fit a decoder's positions, less those of a block behind the last token."""
    return select_prompts(
        documents, tokenizer, prompts, max_new_tokens, room, sample_seed=sample_seed
    )


def _prediction_row(
    tokenizer: AnyTokenizer, eos: int, prompt: Prompt, generation: Generation
) -> dict[str, Any]:
    """One prompt's line of predictions.jsonl, see `schema.AcceptancePrediction`."""
    row = {
        "id": prompt.id,
        "task": prompt.task,
        "prompt": prompt.question,
        "reference": prompt.reference,
        "prediction": _answer_text(tokenizer, eos, generation),
        "is_cut": eos not in generation.tokens,
        "new_tokens": len(generation.tokens),
        "steps": generation.steps,
        "drafted": generation.drafted,
        "accepted": generation.accepted,
        "overlap": generation.overlap,
        "tests_per_position": generation.tests_per_position,
        "accepts_per_position": generation.accepts_per_position,
    }
    if isinstance(generation, ExternalGeneration):
        row["prefixes_per_position"] = generation.prefixes_per_position
    return row


def _speed_row(
    tokenizer: AnyTokenizer,
    eos: int,
    prompt: Prompt,
    index: int,
    method: TimedDecoder,
    baseline: TimedDecoder,
) -> dict[str, Any]:
    """The same with both outputs and both clocks, see `schema.SpeedPrediction`."""
    row = _prediction_row(tokenizer, eos, prompt, method.generations[index])
    for prefix, decoder in (("", method), ("autoregressive_", baseline)):
        timings = [of_round[index] for of_round in decoder.timings]
        row[f"{prefix}seconds"] = [timing.seconds for timing in timings]
        row[f"{prefix}round_tokens"] = [timing.tokens for timing in timings]
    reference = baseline.generations[index]
    row["autoregressive"] = _answer_text(tokenizer, eos, reference)
    row["autoregressive_new_tokens"] = len(reference.tokens)
    return row


def _answer_text(tokenizer: AnyTokenizer, eos: int, generation: Generation) -> str:
    """A generation as text, without its eos."""
    text: str = tokenizer.decode([token for token in generation.tokens if token != eos])
    return text


def _mean_rouge1(rows: list[dict[str, Any]], output: str) -> float:
    """Mean Rouge-1 of an output against the references: whether quality is lost is measured."""
    return statistics.mean(rouge.score(row[output], row["reference"])["rouge1"] for row in rows)


def _rule_label(decode: DecoderSettings) -> str | None:
    """The acceptance rule as tables show it; None for a decoder that verifies nothing."""
    return None if decode.rule is None else RULES[decode.rule].label


def _expected_metrics(
    prediction: Path | None, n: int, costs: MeasuredCosts | None = None
) -> dict[str, float]:
    """What `predict_acceptance` expects at n, from other prompts and without running the target.

    Tokens per step and, with costs, the speedup of decoding without reading prompts.
    """
    if prediction is None:
        return {}
    expected = json.loads((prediction / "metrics.json").read_text(encoding="utf-8"))
    if f"mean_acceptance_length_n{n}" not in expected:
        raise ValueError(
            f"{prediction} has no prediction for n={n}; set predict_acceptance.max_n={n}"
        )
    tokens = expected[f"mean_acceptance_length_n{n}"]
    metrics: dict[str, float] = {"expected_acceptance_length": tokens}
    if costs is not None:
        drafted = expected[f"drafted_per_block_n{n}"]
        metrics["expected_speedup"] = expected_acceptance.speedup(
            tokens, 1, drafted, costs.draft_cost, costs.verify_cost
        )
    return metrics
