"""The fields of metrics.json and of each line of predictions.jsonl, stage by stage.

Both files are written by the two functions below. `soaes.table` reads them,
`soaes.metrics.samples` resamples the predictions, and W&B mirrors the metrics. A stage that
adds a field adds it here. Percentages run from 0 to 100. A field annotated `NotRequired` is
absent where the stage has nothing to report; a field that may be None is present and unknown.

Stages that measure over tasks write most metrics twice: over all samples, and over each task
under a prefixed name such as `qa_rouge1` or `report_speedup`. The prefixed names depend on the
data and are not listed; the classes say which fields have them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from soaes.data.jsonl import write_jsonl
from soaes.pipeline import store

METRICS = "metrics.json"
PREDICTIONS = "predictions.jsonl"


def write_metrics(out: Path, metrics: Mapping[str, Any]) -> None:
    """Write `out`/metrics.json: UTF-8, one field a line, keys in the given order.

    Args:
        out: The unfinished folder of the stage.
        metrics: One of the records of this module, with its fields by task.

    Raises:
        ValueError: A field is NaN or infinite, which JSON does not have; None stands for what
            cannot be measured.
    """
    for name, value in metrics.items():
        try:
            json.dumps(value, allow_nan=False)
        except ValueError:
            raise ValueError(
                f"{name}={value}: not a finite number, so nothing is kept of this stage; "
                "look for the first such number in its curves.jsonl and log.txt"
            ) from None
    store.write_json(out / METRICS, metrics)


def write_predictions(out: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write `out`/predictions.jsonl: one JSON object a line, in the given order.

    Args:
        out: The unfinished folder of the stage.
        rows: Records of this module, one a sample.
    """
    write_jsonl(out / PREDICTIONS, (dict(row) for row in rows))


# ---------------------------------------- answers to the held-out questions


class ScoringInfo(TypedDict):
    """How Rouge and BLEU are computed (`metrics.scoring_info`), beside library versions."""

    rouge: str  # tokenisation and variant
    bleu: str  # tokenisation, smoothing
    blank: str  # the score of an empty answer


class EvaluateMetrics(TypedDict):
    """Stage `evaluate`.

    The scores, recalls, `samples` and `num_cut` are also written by task, and those of the unseen
    set, with `exact_match` and `num_skipped`, as `unseen_*`.
    """

    rouge1: float  # mean Rouge-1 F1 over jieba words, 0..100
    rouge2: float  # mean Rouge-2 F1, 0..100
    rougeL: float  # mean Rouge-L F1, 0..100
    bleu4: float  # mean sentence BLEU-4 over characters, 0..100
    samples: int  # samples that were scored
    num_cut: int  # of these, answers that end at max_new_tokens instead of <|im_end|>
    # the two recalls: only where every question says what it asks for (`attribute`, `values`)
    attribute_recall: NotRequired[float]  # per cent of the asked attributes that answers speak of
    value_recall: NotRequired[float]  # per cent of them whose right value answers name
    num_without_values: NotRequired[int]  # questions that do not say it, where others do
    reference_loss: float  # cross-entropy of the reference answers, nats a token
    num_references_cut: NotRequired[int]  # references whose end does not fit the model's positions
    exact_match: float  # per cent of the answers that equal the reference; not written by task
    scoring: ScoringInfo  # how the scores are computed
    num_skipped: int  # samples whose prompt and answer do not fit the model's positions
    library: NotRequired[str]  # name and version of the library that answered, where it is vLLM


class EvaluatePrediction(TypedDict):
    """A line of `evaluate`: one sample, its answer and its scores."""

    id: str  # the sample's id within its split
    split: str  # the data split, or "unseen" for enterprises that no training question asks about
    task: str  # qa or report
    question: str  # the last user turn
    reference: str  # the expected answer
    prediction: str  # the model's greedy answer
    is_cut: bool  # it ends at max_new_tokens instead of <|im_end|>
    rouge1: float  # 0..100, as all scores
    rouge2: float
    rougeL: float
    bleu4: float
    attribute_recall: NotRequired[float]  # where the question says what it asks for
    value_recall: NotRequired[float]
    reference_nats: NotRequired[float]  # cross-entropy of the reference, summed over its tokens
    reference_tokens: NotRequired[int]  # of the reference, with the one that ends it
    reference_is_cut: NotRequired[bool]  # the reference's end does not fit the model's positions


# ---------------------------------------- multiple-choice exams


class BenchmarkMetrics(TypedDict):
    """Stage `benchmark`.

    Any further exam EXAM of the data adds `EXAM`, `EXAM_questions`, `EXAM_standard_error` and
    `EXAM_untrained`.
    """

    cmmlu: NotRequired[float]  # accuracy in per cent: the mean over the exam's subjects
    cmmlu_questions: NotRequired[int]  # questions that were asked
    cmmlu_standard_error: NotRequired[float]  # of the accuracy over all questions, in points
    cmmlu_untrained: NotRequired[float]  # accuracy of models with random weights: chance, measured
    ceval: NotRequired[float]  # as cmmlu
    ceval_questions: NotRequired[int]
    ceval_standard_error: NotRequired[float]
    ceval_untrained: NotRequired[float]
    average: NotRequired[float]  # mean of cmmlu and ceval, where the data have both
    missing: NotRequired[str]  # otherwise: which of the two exams the data lack
    shots: int  # worked examples in front of each question
    scoring: str  # what is scored of an option, its letter or its text, and how it is normalised
    chance: float  # accuracy of guessing among four options, in per cent
    harness: str  # name and version of the evaluation harness
    library: NotRequired[str]  # name and version of the library that read, where it is vLLM


class BenchmarkPrediction(TypedDict):
    """A line of `benchmark`: one exam question."""

    exam: str  # cmmlu, ceval, or a name from the data
    subject: str  # the exam's subject that the question belongs to
    question: str
    loglikelihood: dict[str, float]  # option letter -> log-likelihood of the answer in nats
    score: dict[str, float]  # the same, divided by the characters of the answer if it is a text
    picked: str  # the letter of the highest score
    answer: str  # the right letter


# ---------------------------------------- speculative decoding


class AcceptanceCounts(TypedDict):
    """What one set of prompts says of acceptance; written over all prompts and by task."""

    acceptance_rate_per_position: (
        float | None
    )  # per cent of all accept tests passed, the paper's reading
    draft_acceptance_rate: (
        float | None
    )  # accepted / drafted tokens in per cent, as vLLM and papers report it
    overlap: (
        float | None
    )  # mean of sum min(p, q) over drafted positions, in per cent; None: not reported
    mean_acceptance_length: float  # new tokens a forward of the target; 1 is autoregression
    new_tokens_mean: float  # generated tokens a prompt
    tests_per_position: list[int]  # accept tests at drafted position 1 .. n, summed over prompts
    accepts_per_position: list[int]  # of these, how many passed
    num_cut: int  # answers that end at max_new_tokens instead of <|im_end|>


class DecodingFacts(TypedDict):
    """Fields that `acceptance` and `speed` share, of all prompts together."""

    n: int  # drafted tokens a block
    prompts: int  # prompts that were decoded
    # samples of their tasks that do not fit the models' positions; prompts are of the others
    num_skipped: int
    rule: str | None  # the acceptance rule by name; None for autoregression
    rouge1: float  # mean Rouge-1 of the decoder's answers, 0..100
    expected_acceptance_length: NotRequired[
        float
    ]  # what predict_acceptance says of the mean at this n


class AcceptanceMetrics(AcceptanceCounts, DecodingFacts):
    """Stage `acceptance`. The fields of AcceptanceCounts are also written by task."""


class DecodingCosts(TypedDict):
    """Costs in steps of autoregression; all None where a backend's parts cannot be timed."""

    draft_cost: float | None  # c: one drafted token
    verify_cost: float | None  # v: one verification of n drafted tokens
    verify_costs: list[float] | None  # verification of 0, 1 .. n drafted tokens
    prompt_cost: float | None  # the target reads a prompt
    draft_prompt_cost: float | None  # the draft reads a prompt
    baseline_share: float | None  # share of a step that its matrix products take alone, 0..1
    target_step_ms: float | None  # one step of the target, in milliseconds


class SpeedCounts(AcceptanceCounts):
    """Speed and acceptance of one set of prompts; written over all prompts and by task."""

    speedup: float  # median over rounds of tokens per second over those of autoregression
    tokens_per_s: float  # median over rounds
    autoregressive_tokens_per_s: float  # median over rounds
    speedup_low: float  # the slowest round's ratio
    speedup_high: float  # the fastest round's ratio
    predicted_speedup: (
        float | None
    )  # from counts and costs, without the loop's own time; None without costs
    measured_over_predicted: float | None  # speedup / predicted_speedup


class SpeedMetrics(SpeedCounts, DecodingCosts, DecodingFacts):
    """Stage `speed`. The fields of SpeedCounts are also written by task."""

    expected_speedup: NotRequired[
        float
    ]  # what predict_acceptance and the costs give, prompts left out
    rouge1_autoregressive: float  # mean Rouge-1 of the baseline's answers, 0..100
    rounds: int  # timed rounds, warm-up not counted
    prompt_tokens_mean: float  # prompt length in tokens
    # greedy: "equal tokens" or "equal tokens but for near ties"; under sampling: "law" (an exact
    # rule) or "biased"
    proof: str
    near_tie_answers: float | None  # greedy: per cent of answers that a near tie decided otherwise
    near_tie_tokens: float | None  # and per cent of new tokens
    like_native: (
        float | None
    )  # per cent of prompts on which another library's greedy baseline equals ours, if we have one
    machine: str  # device the clock ran on
    library: str  # library and version that decoded


class AcceptancePrediction(TypedDict):
    """A line of `acceptance`: one prompt and the counts of its blocks."""

    id: str  # the sample's id within its split
    task: str  # qa or report
    prompt: str  # the last user turn
    reference: str  # the expected answer
    prediction: str  # what the decoder wrote
    is_cut: bool  # it ends at max_new_tokens instead of <|im_end|>
    new_tokens: int  # generated tokens
    steps: int  # forwards of the target
    drafted: int  # drafted tokens
    accepted: int  # drafted tokens that were emitted
    overlap: (
        float | None
    )  # sum over drafted positions of sum min(p, q); None: the backend does not report it
    tests_per_position: list[
        int
    ]  # accept tests at drafted position 1 .. n; empty where not reported
    accepts_per_position: list[int]  # of these, how many passed
    prefixes_per_position: NotRequired[
        list[int]
    ]  # another library: blocks with at least 1 .. n accepted


class SpeedPrediction(AcceptancePrediction):
    """A line of `speed`: one prompt, both outputs and both clocks."""

    seconds: list[float]  # wall time of the decoder, one a round
    round_tokens: list[int]  # its generated tokens, one a round
    autoregressive_seconds: list[float]  # the same of the autoregressive baseline
    autoregressive_round_tokens: list[int]
    autoregressive: str  # what the baseline wrote
    autoregressive_new_tokens: int
    near_ties: NotRequired[int]  # greedy: tokens that a near tie decided otherwise


# ---------------------------------------- acceptance predicted without the target


class TargetTraceMetrics(TypedDict):
    """Stage `target_trace`: the target's answers and their distributions. No predictions.jsonl."""

    prompts: int  # texts that were written
    new_tokens_mean: float  # tokens a text
    nucleus_mean: float  # entries of a token's distribution
    bytes_per_token: float  # size of the stored distributions
    num_cut: int  # texts that end at max_new_tokens instead of <|im_end|>
    num_skipped: int  # samples of their tasks that do not fit the target's positions


class PredictAcceptanceMetrics(TypedDict):
    """Stage `predict_acceptance`. All but `prompts` are also written by task.

    For each n = 1 .. max_n: `mean_acceptance_length_nN` (tokens a forward of the target),
    `accepted_per_block_nN` and `drafted_per_block_nN` (an upper bound).
    """

    overlap_on_text: float | None  # mean of sum min(p, q) over the tokens of the texts, in per cent
    new_tokens_mean: float  # tokens a text
    prompts: int  # texts that were read


class PredictAcceptanceLine(TypedDict):
    """A line of `predict_acceptance`: one text; JSON turns the keys n into strings."""

    id: str  # the sample's id within its split
    task: str  # qa or report
    prompt: str  # the last user turn
    new_tokens: int  # tokens of the text
    overlap: float  # sum over its tokens of sum min(p, q)
    expected_steps: dict[int, float]  # forwards of the target
    expected_accepted: dict[int, float]  # drafted tokens that are emitted
    expected_reached: dict[int, float]  # accept tests up to each block's first rejection
    expected_drafted: dict[int, float]  # drafted tokens, an upper bound


# ---------------------------------------- training


# W&B shows the same names, hence the slash, which a class body cannot spell.
TrainMetrics = TypedDict(
    "TrainMetrics",
    {
        "val/perplexity": float,  # on the dev rows, after the last step
        "val/perplexity_before": float,  # before the first step
        "steps": int,  # optimizer steps
        "rows": int,  # packed training rows
        "seconds": float,  # wall time, earlier attempts included when a run was resumed
        "val/rouge1": NotRequired[float],  # on the dev prompts, where the rows have any; 0..100
        "val/rouge1_before": NotRequired[float],
        "skipped_steps": NotRequired[int],  # that float16's loss scaler left out, if there were any
    },
)
"""Stages pretrain, instruct, cpt and sft. No predictions.jsonl, but curves.jsonl by step."""


class SoftTargetFidelity(TypedDict):
    """What the stored soft targets lose at the tau of `distill`, if probed at it."""

    teacher_entropy: NotRequired[float]  # of the teacher at tau, nats a token
    soft_targets_bytes: NotRequired[float]  # bytes a token
    # KL(teacher || stored), nats a token; None: infinite
    soft_targets_kl: NotRequired[float | None]
    soft_targets_gradient_bias: NotRequired[float | None]  # |mean g - exact g| / |exact g|
    soft_targets_gradient_variance: NotRequired[float | None]  # E |g - mean g|^2 / |exact g|^2


class DistillMetrics(TrainMetrics, SoftTargetFidelity):
    """Stage `distill`: training, and how close the soft targets are to the teacher."""


class FidelityEntry(TypedDict):
    """How close stored soft targets are to the exact teacher at one tau."""

    tau: float
    bytes: float  # bytes a token
    entropy: float  # of the teacher at tau, nats a token
    kl: float | None  # KL(teacher || stored), nats a token; None: infinite
    gradient_bias: float | None  # |mean g - exact g| / |exact g|, less what chance alone shows
    gradient_variance: float | None  # E |g - mean g|^2 / |exact g|^2
    along: float | None  # projection of mean g on the exact g, less 1
    low: float | None  # its 95 % interval, for sampled soft targets
    high: float | None
    smallest_k: NotRequired[
        int | None
    ]  # top-k: from which k the gradient is within 1 % of the exact one


class TeachMetrics(TypedDict):
    """Stages `teach` and `teach_vllm`: size and fidelity of the store. No predictions.jsonl."""

    bytes_per_token: float
    tokens: int  # tokens with soft targets
    packed_rows: int  # rows of the packed data set
    fidelity: list[FidelityEntry]  # by tau; empty where it cannot be measured


# ---------------------------------------- data


class CorpusMetrics(TypedDict):
    """The stages of soaes.stages.corpus; account.json has what each of their rules took."""

    files: NotRequired[int]  # files below general/ and corpus/; stage `read` alone
    documents_in: int  # documents that came into the step
    documents: int  # of these, those that it kept
    characters_in: int
    characters: int
    rejected: int  # files, pages and records that became no document; stage `read` alone
    # stage `deduplicate` alone
    bands: NotRequired[int]  # derived from the similarity and the recall that are asked for
    band_rows: NotRequired[int]  # hashes of a band
    pairs_compared: NotRequired[int]  # pairs that share a band and were compared exactly
    pairs_vetoed_title: NotRequired[int]  # kept apart: other titles
    pairs_vetoed_date: NotRequired[int]  # other dates
    pairs_vetoed_facts: NotRequired[int]  # short texts with other numbers, names or titles in them
    pairs_vetoed_clause: NotRequired[int]  # short texts with a clause of their own
    pairs_not_compared: NotRequired[int]  # beyond those with the most bands in common


class DrawPassagesMetrics(TypedDict):
    """Stage `draw_passages`; account.json has every stratum with its size."""

    items: int  # passages that were drawn
    documents: int  # that they are of
    passages: int  # of the corpus, from which they were drawn
    strata: int


class LabelsMetrics(TypedDict):
    """Stage `labels`: what people said of passages; account.json has all of it."""

    labels: int  # passages with one label, which were found in the documents
    relevant: int  # of these, relevant ones
    families: int  # of the documents that they are of
    num_replaced: int  # decisions that gave way to a later one of the same person
    num_dropped: int  # labels and items that are not used, by name in drops.jsonl


class DrawPairsMetrics(TypedDict):
    """Stage `draw_pairs`; account.json has every stratum with its size."""

    items: int  # pairs that were drawn
    dropped: int  # near-duplicates that were dropped
    kept: int  # similar pairs of which both documents were kept
    num_too_long: int  # dropped ones that are not drawn, since a document is too long to be shown
    num_not_compared: int  # candidates that may be similar, and were not compared


class JudgedPairsMetrics(TypedDict):
    """Stage `judged_pairs`; pairs.json has it with intervals and by stratum."""

    precision: float | None  # share of dropped pairs that are duplicates
    missed: float | None  # share of all duplicates that were kept
    decided: int  # pairs on which people agree
    num_replaced: int  # decisions that gave way to a later one of the same person
    precision_low: NotRequired[float]  # 95 % intervals
    precision_high: NotRequired[float]
    missed_low: NotRequired[float]
    missed_high: NotRequired[float]
    num_dropped: int  # items that give no pair, by name in drops.jsonl


class HeldOutMetrics(TypedDict):
    """Stage `held_out_questions`."""

    held_out: int  # questions that evaluation asks, and that no document may hold


class AskMetrics(TypedDict):
    """Stage `ask`: calls of the model that writes questions, those of earlier recipes included."""

    calls: int  # calls in all, one a question
    reports: int  # of these, calls for a report
    documents: int  # documents that are asked about
    prompt_tokens: int  # as the server counted them
    answer_tokens: int


class ScreenMetrics(TypedDict):
    """Stage `screen`: calls = items + num_rejected; account.json counts rejections by name."""

    items: int  # answers that passed
    reports: int  # of these, reports
    calls: int  # answers that were screened
    num_rejected: int  # of these, rejected
    num_dev: int  # items of the documents that are set apart for dev
    num_test: int  # likewise for test


class AnnotatedMetrics(TypedDict):
    """Stage `annotated`: what people decided, of all exports and annotated files."""

    items: int  # items of all kinds
    decided: int  # of these, items that somebody decided on
    decisions: int  # decisions in all
    num_replaced: int  # decisions that gave way to a later one of the same person
    num_rejected: int  # records that became no item


class AdoptMetrics(TypedDict):
    """Stage `adopt`: items that people accepted; card.json is the data card."""

    adopted: int  # items in qa/
    train: int  # of these, in train, and likewise
    dev: int
    test: int
    reports: int  # of the adopted items, reports
    families: int  # of documents; none stands in two splits
    num_dropped: int  # items that were not adopted, by name in drops.jsonl


class FilesMetrics(TypedDict):
    """Stage `files`: records that were kept; curation_report.json has what was dropped and why."""

    problems: int  # files and records that were dropped
    contaminated: int  # records that were dropped since they hold a question of dev, test or exam
    general: int  # documents of general text
    corpus: int  # documents of the domain
    dialogue: int  # dialogues
    qa: int  # question-answer pairs
    exam: int  # exam questions


class PackMetrics(TypedDict):
    """Stage `pack`: documents of train and dev; packing_report.json has the tokens."""

    documents: int  # documents read, replayed ones as often as they are
    num_dropped: int  # of these, longer than a row and left out
    num_split: int  # of these, longer than a row and cut over rows
    packed_rows: int  # training rows
    fill: float  # of the training rows, 0..1


class PackedSplit(TypedDict):
    """Tokens of one split, in packing_report.json of `pack`."""

    documents: int  # documents read
    tokens: int  # tokens read
    kept: int  # tokens in rows
    dropped: dict[str, int | str]  # documents, tokens, and the reason
    split: dict[str, int]  # documents and tokens that were cut over rows
    rows: int  # rows of `context` tokens
    fill: float  # kept tokens / room of the rows, 0..1
    loss_tokens: int  # tokens that bear loss


class PackingReport(TypedDict):
    """packing_report.json of stage `pack`, beside its metrics.json."""

    sources: list[str]  # some of: general, corpus, dialogue, qa
    context: int  # tokens a row
    replay: dict[
        str, float
    ]  # share, and documents, tokens and different documents of replayed general text
    train: PackedSplit
    dev: PackedSplit
