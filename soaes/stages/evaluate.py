"""Score a model's answers to the held-out questions of stage 2. Exams and speed are measured elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from soaes.data.chat import load_tokenizer, prompt
from soaes.data.curation import exam_files
from soaes.data.jsonl import read_jsonl, write_jsonl
from soaes.metrics import bleu, exams, rouge
from soaes.metrics.estimators import answer_scores
from soaes.metrics.scoring_info import scoring_info
from soaes.model import checkpoint
from soaes.model.generate import generate
from soaes.pipeline import validation
from soaes.pipeline.runtime import Execution


def evaluate(
    model: Path,
    documents: Path,
    split: str,
    limit: int | None,
    max_new_tokens: dict[str, int],
    unseen_samples: int | None = 0,
    execution: Execution = Execution(),
    *,
    out: Path,
) -> None:
    """Greedy answers to the first `limit` samples of a split (None: all), scored one by one; each task is also scored alone.

    Where the documents have qa/unseen.jsonl (enterprises that no training question asks about), its first `unseen_samples` samples are
    answered too and scored as unseen_*, never mixed with the split's. A sample whose prompt and answer do not fit the model's
    positions is left out and counted, never cut.

    metrics.json: mean scores in 0..100; predictions.jsonl: one line a sample. max_new_tokens: per task (qa, report)."""
    torch.set_num_threads(execution.threads)
    sets = {split: read_jsonl(documents / "qa" / f"{split}.jsonl")[:limit]}
    if not sets[split]:
        raise ValueError(f"qa/{split}.jsonl of {documents.name} holds no samples")
    if unseen_samples != 0 and (documents / "qa" / "unseen.jsonl").exists():
        sets["unseen"] = read_jsonl(documents / "qa" / "unseen.jsonl")[:unseen_samples]
    tokenizer = load_tokenizer(model)
    network = checkpoint.load(model).to(execution.device).eval()
    answered = {
        name: _answered(network, tokenizer, samples, name, max_new_tokens)
        for name, samples in sets.items()
    }
    if not answered[split]:
        room = network.config.max_position_embeddings
        raise ValueError(
            f"none of {len(sets[split])} prompts fits {room} positions with its answer; set a larger context"
        )
    write_jsonl(out / "predictions.jsonl", [row for rows in answered.values() for row in rows])
    metrics = {**_means(answered[split]), "num_skipped": len(sets[split]) - len(answered[split])}
    if answered.get("unseen"):
        scores = {
            **_scores(answered["unseen"]),
            "num_skipped": len(sets["unseen"]) - len(answered["unseen"]),
        }
        metrics |= {f"unseen_{key}": value for key, value in scores.items()}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1, ensure_ascii=False))


def _answered(
    network: Any,
    tokenizer: Any,
    samples: list[dict[str, Any]],
    split: str,
    max_new_tokens: dict[str, int],
) -> list[dict[str, Any]]:
    """The samples that fit, task by task, each with its prediction and scores."""
    room = network.config.max_position_embeddings
    prompts = [prompt(tokenizer, sample["messages"][:-1]) for sample in samples]
    fitting = [
        (sample, ids)
        for sample, ids in zip(samples, prompts, strict=True)
        if len(ids) + max_new_tokens[sample["task"]] <= room
    ]
    rows = []
    for task in sorted({sample["task"] for sample, _ in fitting}):
        of_task = [(sample, ids) for sample, ids in fitting if sample["task"] == task]
        said = generate(network, tokenizer, [ids for _, ids in of_task], max_new_tokens[task])
        rows += [
            _scored(sample, split, text) for (sample, _), text in zip(of_task, said, strict=True)
        ]
    return rows


def _scored(sample: dict[str, Any], split: str, prediction: str) -> dict[str, Any]:
    reference = sample["messages"][-1]["content"]
    scores = {**rouge.score(prediction, reference), "bleu4": bleu.score(prediction, reference)}
    return {
        "id": sample["id"],
        "split": split,
        "task": sample["task"],
        "question": sample["messages"][-2]["content"],
        "reference": reference,
        "prediction": prediction,
        **scores,
    }


def _scores(rows: list[dict[str, Any]]) -> dict[str, float]:
    scores = {name: mean.value() for name, mean in answer_scores(rows).items()}
    exact_match = scores.pop("exact_match")
    return {**scores, "samples": len(rows), "exact_match": exact_match}


def _means(predictions: list[dict[str, Any]]) -> dict[str, Any]:
    """Scores over all predictions and over those of each task."""
    means: dict[str, Any] = _scores(predictions)
    for task in sorted({row["task"] for row in predictions}):
        scores = _scores([row for row in predictions if row["task"] == task])
        del scores["exact_match"]
        means |= {f"{task}_{name}": value for name, value in scores.items()}
    return means | {"scoring": scoring_info()}


def benchmark(
    model: Path,
    documents: Path,
    shots: int,
    limit: int | None = None,
    scoring: str = "letter",
    execution: Execution = Execution(),
    *,
    out: Path,
) -> None:
    """Writes metrics.json (accuracies in percent) and predictions.jsonl (each question, and what the model picked).

    `limit` is the number of questions of each subject; scoring: letter or text, what is scored.
    A data folder without exams is no fault: metrics.json says so.
    """
    validation.check(scoring=scoring)
    torch.set_num_threads(execution.threads)
    taken, rows = exam_files.read(documents / "exam"), []
    if taken:
        tokenizer = load_tokenizer(model)
        network = checkpoint.load(model).to(execution.device)
        rows = exams.answers(
            exams.Reader(network, tokenizer, execution.micro_batch_size),
            taken,
            shots,
            limit,
            scoring,
        )
    write_jsonl(out / "predictions.jsonl", rows)
    metrics = json.dumps(exams.summary(rows, shots, scoring), ensure_ascii=False, indent=1)
    (out / "metrics.json").write_text(metrics, encoding="utf-8")
