"""Score a model's answers to the held-out questions of stage 2. Exams and speed are measured elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from soaes.data.chat import prompt
from soaes.data.jsonl import read_jsonl, write_jsonl
from soaes.decode.answers import answers
from soaes.execution import Execution
from soaes.metrics import bleu, rouge
from soaes.metrics.recipe import recipe_stamp
from soaes.model import checkpoint

SCORES = ("rouge1", "rouge2", "rougeL", "bleu4")


def evaluate(model: Path, documents: Path, split: str, limit: int | None, max_new_tokens: dict[str, int],
             execution: Execution = Execution(), *, out: Path) -> None:
    """Greedy answers to the first `limit` samples of a split (None: all), scored one by one; reports are also scored apart.

    A sample whose prompt and answer do not fit the model's positions is left out and counted, never cut.

    metrics.json: mean scores in 0..100; predictions.jsonl: one line a sample. max_new_tokens: per task (qa, report)."""
    from tokenizers import Tokenizer

    torch.set_num_threads(execution.threads)
    samples = read_jsonl(documents / "qa" / f"{split}.jsonl")[:limit]
    if not samples:
        raise ValueError(f"qa/{split}.jsonl of {documents.name} holds no samples")
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    network = checkpoint.load(model).to(execution.device).eval()
    prompts = {sample["id"]: prompt(tokenizer, sample["messages"][:-1]) for sample in samples}
    room = network.config.max_position_embeddings
    fitting = [sample for sample in samples if len(prompts[sample["id"]]) + max_new_tokens[sample["task"]] <= room]
    if not fitting:
        raise ValueError(f"none of {len(samples)} prompts fits {room} positions with its answer; set a larger context")
    predictions = []
    for task in sorted({sample["task"] for sample in fitting}):
        of_task = [sample for sample in fitting if sample["task"] == task]
        said = answers(network, tokenizer, [prompts[sample["id"]] for sample in of_task], max_new_tokens[task])
        predictions += [_scored(sample, text) for sample, text in zip(of_task, said, strict=True)]
    write_jsonl(out / "predictions.jsonl", predictions)
    (out / "metrics.json").write_text(json.dumps({**_means(predictions), "left_out": len(samples) - len(fitting)}, indent=1, ensure_ascii=False))


def _scored(sample: dict[str, Any], prediction: str) -> dict[str, Any]:
    reference = sample["messages"][-1]["content"]
    scores = {**rouge.score(prediction, reference), "bleu4": bleu.score(prediction, reference)}
    return {"id": sample["id"], "task": sample["task"], "question": sample["messages"][-2]["content"], "reference": reference,
            "prediction": prediction, **scores}


def _means(predictions: list[dict[str, Any]]) -> dict[str, Any]:
    means: dict[str, Any] = {score: fmean(row[score] for row in predictions) for score in SCORES}
    means |= {"samples": len(predictions), "exact_match": 100 * fmean(row["prediction"] == row["reference"] for row in predictions)}
    for task in sorted({row["task"] for row in predictions}):
        of_task = [row for row in predictions if row["task"] == task]
        means |= {f"{task}_{score}": fmean(row[score] for row in of_task) for score in SCORES}
        means[f"{task}_samples"] = len(of_task)
    return means | {"scoring": recipe_stamp()}
