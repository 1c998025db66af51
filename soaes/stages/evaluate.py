"""Score a model: its answers to held-out questions (`evaluate`) and its exams (`benchmark`).

The path of the data: samples of a split -> prompts (data.chat) -> greedy answers (by a backend,
decode.backends.language_model) -> scores of each answer (metrics.rouge, metrics.bleu) -> means
(metrics.estimators); the loss of the reference answers is measured beside them. Speed is measured
elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedModel

from soaes.data import splits
from soaes.data.chat import AnyTokenizer, answer, load_tokenizer, prompt
from soaes.data.curation import exam_files
from soaes.data.jsonl import read_jsonl
from soaes.decode.backends.language_model import LanguageModel, ModelBackend, open_transformers
from soaes.metrics import bleu, exams, rouge
from soaes.metrics.estimators import answer_scores
from soaes.metrics.recall import Vocabulary, recall, vocabulary
from soaes.metrics.schema import EvaluatePrediction, write_metrics, write_predictions
from soaes.metrics.scoring_info import scoring_info
from soaes.model import checkpoint
from soaes.model.folder import text_config
from soaes.model.generate import Answer, finish
from soaes.model.output_head import OutputHead
from soaes.pipeline import validation
from soaes.pipeline.runtime import Execution

NUM_UNTRAINED = 4  # models that measure chance

Sample = dict[str, Any]  # a question of qa/*.jsonl: id, task, messages


def evaluate(
    model: Path,
    documents: Path,
    split: str,
    limit: int | None,
    max_new_tokens: dict[str, int],
    unseen_samples: int | None = 0,
    sample_seed: int = 0,
    execution: Execution = Execution(),
    backend: ModelBackend = open_transformers,
    *,
    out: Path,
) -> None:
    """Score greedy answers to samples of a split, over all tasks and by task.

    Where the documents have qa/unseen.jsonl (enterprises that no training question asks about),
    samples of it are answered as well and scored as `unseen_*`, apart from the split's. A sample
    whose prompt and answer do not fit the model's positions is skipped and counted, never cut. An
    answer that reaches the limit of new tokens is scored as it is, and counted.

    Args:
        model: folder of the model.
        documents: folder of the documents.
        split: train, dev or test.
        limit: samples of the split, drawn at random; None: all.
        max_new_tokens: length limit of an answer, by task (qa, report).
        unseen_samples: samples of qa/unseen.jsonl, drawn at random; None: all.
        sample_seed: of both draws. It is not the run's seed, so that all runs answer the same.
        execution: device.
        backend: opens the model: transformers, or vLLM.
        out: folder for metrics.json (mean scores, 0 to 100; the loss of the references, nats a
            token) and predictions.jsonl (a line a sample).

    Raises:
        ValueError: if the split is empty, or no prompt fits.
    """
    questions: list[Sample] = read_jsonl(documents / "qa" / f"{split}.jsonl")
    samples = {split: splits.sample(questions, limit, sample_seed)}
    if not samples[split]:
        raise ValueError(f"qa/{split}.jsonl of {documents.name} holds no samples")
    unseen_path = documents / "qa" / "unseen.jsonl"
    if unseen_samples != 0 and unseen_path.exists():
        samples["unseen"] = splits.sample(read_jsonl(unseen_path), unseen_samples, sample_seed)

    values: Vocabulary = {}
    if any("values" in sample for group in samples.values() for sample in group):
        paths = (documents / "qa").glob("*.jsonl")
        values = vocabulary(record for path in paths for record in read_jsonl(path))
    tokenizer = load_tokenizer(model)
    with backend(model, execution) as language_model:
        predictions = {
            name: _predict(language_model, tokenizer, some, name, max_new_tokens, values)
            for name, some in samples.items()
        }
    if not predictions[split]:
        raise ValueError(
            f"none of {len(samples[split])} prompts fits {language_model.positions} positions with "
            "its answer; set a larger context"
        )
    skipped = {name: len(some) - len(predictions[name]) for name, some in samples.items()}

    metrics = {
        **_scores_by_task(predictions[split]),
        "scoring": scoring_info(),
        "num_skipped": skipped[split],
    }
    if predictions.get("unseen"):
        unseen = {**_scores(predictions["unseen"]), "num_skipped": skipped["unseen"]}
        metrics |= {f"unseen_{name}": value for name, value in unseen.items()}
    if language_model.library is not None:
        metrics["library"] = language_model.library
    write_predictions(out, [row for rows in predictions.values() for row in rows])
    write_metrics(out, metrics)


def _predict(
    language_model: LanguageModel,
    tokenizer: AnyTokenizer,
    samples: list[Sample],
    split: str,
    max_new_tokens: Mapping[str, int],
    values: Vocabulary,
) -> list[EvaluatePrediction]:
    """Answer and score the samples that fit, task by task."""
    positions = language_model.positions
    fitting: dict[str, list[tuple[Sample, list[int]]]] = {}
    for sample in samples:
        ids = prompt(tokenizer, sample["messages"][:-1])
        task = sample["task"]
        if len(ids) + max_new_tokens[task] <= positions:
            fitting.setdefault(task, []).append((sample, ids))
    rows = []
    for task in sorted(fitting):
        prompts = [ids for _, ids in fitting[task]]
        references = [
            _reference(tokenizer, sample, positions - len(ids)) for sample, ids in fitting[task]
        ]
        answers = language_model.write(prompts, max_new_tokens[task])
        reference_ids = [reference.ids for reference in references]
        nats = language_model.reference_nats(prompts, reference_ids)
        for index, (sample, _) in enumerate(fitting[task]):
            row = _prediction(sample, split, finish(tokenizer, answers[index]), values)
            row["reference_nats"] = nats[index]
            row["reference_tokens"] = len(references[index].ids)
            row["reference_is_cut"] = references[index].is_cut
            rows.append(row)
    return rows


class Reference(NamedTuple):
    """The token ids of a reference answer."""

    ids: list[int]
    is_cut: bool
    """It is longer than the model's positions."""


def _reference(tokenizer: AnyTokenizer, sample: Sample, limit: int) -> Reference:
    """Encode the reference answer as SFT does, as far as the model's positions reach."""
    ids = answer(tokenizer, sample["messages"])
    return Reference(ids[:limit], is_cut=len(ids) > limit)


def _prediction(
    sample: Sample, split: str, answer: Answer, values: Vocabulary
) -> EvaluatePrediction:
    """Score one answer."""
    reference = sample["messages"][-1]["content"]
    rouges = rouge.score(answer.text, reference)
    prediction: EvaluatePrediction = {
        "id": sample["id"],
        "split": split,
        "task": sample["task"],
        "question": sample["messages"][-2]["content"],
        "reference": reference,
        "prediction": answer.text,
        "is_cut": answer.is_cut,
        "rouge1": rouges["rouge1"],
        "rouge2": rouges["rouge2"],
        "rougeL": rouges["rougeL"],
        "bleu4": bleu.score(answer.text, reference),
    }
    facts = recall(sample, answer.text, values)
    if facts is not None:
        prediction["attribute_recall"] = facts.attribute
        prediction["value_recall"] = facts.value
    return prediction


def _scores(predictions: list[EvaluatePrediction]) -> dict[str, float]:
    """Average the scores of some predictions."""
    scores = {name: mean.value() for name, mean in answer_scores(predictions).items()}
    exact_match = scores.pop("exact_match")
    judged = sum("value_recall" in row for row in predictions)
    if 0 < judged < len(predictions):
        scores["num_without_values"] = len(predictions) - judged
    if references_cut := sum(row.get("reference_is_cut", False) for row in predictions):
        scores["num_references_cut"] = references_cut
    return {
        **scores,
        "samples": len(predictions),
        "num_cut": sum(row["is_cut"] for row in predictions),
        "exact_match": exact_match,
    }


def _scores_by_task(predictions: list[EvaluatePrediction]) -> dict[str, Any]:
    """Average the scores over all predictions and over those of each task."""
    metrics: dict[str, Any] = _scores(predictions)
    for task in sorted({row["task"] for row in predictions}):
        scores = _scores([row for row in predictions if row["task"] == task])
        del scores["exact_match"]
        metrics |= {f"{task}_{name}": value for name, value in scores.items()}
    return metrics


def benchmark(
    model: Path,
    documents: Path,
    shots: int,
    limit: int | None = None,
    scoring: str = "letter",
    execution: Execution = Execution(),
    backend: ModelBackend = open_transformers,
    *,
    out: Path,
) -> None:
    """Take the exams of a data folder: multiple choice by log-likelihood.

    Small models with random weights take them as well, so that chance is measured: it is not 25
    where the right option can be told by its length. Data without exams is no error: metrics.json
    says so.

    Args:
        model: folder of the model.
        documents: folder of the documents, with exam/NAME/**.csv.
        shots: worked examples in front of each question.
        limit: questions of each subject, drawn at random; None: all.
        scoring: what is scored of an option, its `letter` or its `text`.
        execution: device, and questions at once.
        backend: opens the model: transformers, or vLLM.
        out: folder for metrics.json (accuracies in per cent) and predictions.jsonl (each question
            and the option that the model picked).
    """
    validation.check_one_of("scoring", scoring, validation.SCORINGS)
    questions = exam_files.read(documents / "exam")
    answers = exams.Answers([], [])
    library = None
    if questions:
        tokenizer = load_tokenizer(model)
        positions = text_config(model)["max_position_embeddings"]
        untrained = [
            exams.Reader(_judge(network, execution), tokenizer)
            for network in _untrained(model, positions)
        ]
        with backend(model, execution) as language_model:
            reader = exams.Reader(language_model.judge, tokenizer)
            answers = exams.answers(reader, questions, shots, limit, scoring, untrained)
            library = language_model.library
    metrics = exams.summary(answers.rows, shots, scoring, answers.untrained)
    if library is not None:
        metrics["library"] = library
    write_predictions(out, answers.rows)
    write_metrics(out, metrics)


def _judge(network: PreTrainedModel, execution: Execution) -> exams.ModelJudge:
    logits = OutputHead.of(network).logits
    return exams.ModelJudge(network.to(execution.device), logits, execution.micro_batch_size)


def _untrained(model: Path, positions: int) -> list[PreTrainedModel]:
    """Create small models with random weights that read as `model` does."""
    return [
        checkpoint.create(
            model,
            layers=1,
            width=64,
            heads=1,
            kv_heads=1,
            context=positions,
            seed=seed,
            position_factor=1,
        )
        for seed in range(NUM_UNTRAINED)
    ]
