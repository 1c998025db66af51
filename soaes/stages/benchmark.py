"""Benchmark: the exams of a data folder, taken by one model in one start of the harness."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer

from soaes import limits
from soaes.data import exam_files
from soaes.data.jsonl import write_jsonl
from soaes.execution import Execution
from soaes.metrics import exams
from soaes.model import checkpoint


def benchmark(
    model: Path, documents: Path, shots: int, limit: int | None = None, answer: str = "letter", execution: Execution = Execution(), *, out: Path
) -> None:
    """Writes metrics.json (accuracies in percent) and predictions.jsonl (each question, and what the model picked).

    `limit` is the number of questions of each subject; answer: letter or text, what is scored.
    A data folder without exams is no fault: metrics.json says so.
    """
    limits.check(answer=answer)
    torch.set_num_threads(execution.threads)
    taken, rows = exam_files.read(documents / "exam"), []
    if taken:
        tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        network = checkpoint.load(model).to(execution.device)
        rows = exams.answers(exams.Reader(network, tokenizer, execution.micro_batch), taken, shots, limit, answer)
    write_jsonl(out / "predictions.jsonl", rows)
    metrics = json.dumps(exams.summary(rows, shots, answer), ensure_ascii=False, indent=1)
    (out / "metrics.json").write_text(metrics, encoding="utf-8")

