"""What models answered, question by question: each question once a seed, all answers beside it.

A sheet holds one kind of predictions in one seed. Its questions stand in the order of the files;
the answers of all stages to a question stand together, which also compresses best. Knows
predictions.jsonl of evaluate, benchmark, acceptance and speed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from soaes.data.jsonl import read_jsonl
from soaes.metrics.schema import PREDICTIONS
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store

Prediction = Mapping[str, Any]  # a line of predictions.jsonl


@dataclass(frozen=True)
class Kind:
    """How the predictions of one kind of stage are shown."""

    scores: tuple[str, ...]  # fields of a line, and `right` of an exam
    group: Callable[[Prediction], str]  # what readers filter by
    question: str  # field of the question
    reference: str  # field of the right answer
    answer: str  # field of the model's answer


DECODED = Kind(
    scores=("new_tokens", "steps", "drafted", "accepted"),
    group=lambda line: str(line["task"]),
    question="prompt",
    reference="reference",
    answer="prediction",
)
KINDS: dict[str, Kind] = {
    "evaluate": Kind(
        scores=("rouge1", "rouge2", "rougeL", "bleu4", "value_recall"),
        group=lambda line: f"{line['task']} ({line['split']})",
        question="question",
        reference="reference",
        answer="prediction",
    ),
    "benchmark": Kind(
        scores=("right",),
        group=lambda line: f"{line['exam']}: {line['subject']}",
        question="question",
        reference="answer",
        answer="picked",
    ),
    "acceptance": DECODED,
    "speed": DECODED,
}


class Question(TypedDict):
    """A question and what each stage answered."""

    group: str  # its task, or the exam and subject
    question: str
    reference: str
    texts: list[str]  # different answers
    answers: list[int]  # of each stage its place in `texts`; -1: the stage was not asked
    scores: list[list[float | None] | None]  # of each stage, in the order of the sheet's scores
    cut: list[int]  # places of stages whose answer ends at the length limit


class Sheet(TypedDict):
    """The predictions of one kind in one seed."""

    kind: str
    seed: int
    scores: list[str]
    stages: list[str]  # names
    questions: list[Question]


def sheets(store: Store, goals: Iterable[tuple[int, Recipe]]) -> list[Sheet]:
    """Read the predictions of all built goals.

    Args:
        store: Where they lie.
        goals: Seed and recipe of each; one that several rows share is read once.

    Returns:
        A sheet for each kind and seed of which anything is built.
    """
    names: dict[tuple[str, int], list[str]] = defaultdict(list)
    for seed, goal in goals:
        place = (goal.stage, seed)
        has_file = (store.folder(goal.name) / PREDICTIONS).exists()
        if goal.stage in KINDS and has_file and goal.name not in names[place]:
            names[place].append(goal.name)
    return [_sheet(store, kind, seed, stages) for (kind, seed), stages in names.items() if stages]


def _sheet(store: Store, kind: str, seed: int, stages: list[str]) -> Sheet:
    fields = KINDS[kind]
    questions: dict[tuple[Any, ...], Question] = {}
    for index, name in enumerate(stages):
        seen: dict[tuple[Any, ...], int] = defaultdict(int)
        for line in read_jsonl(store.folder(name) / PREDICTIONS):
            place = (fields.group(line), line.get("id"), line[fields.question])
            seen[place] += 1  # an exam may ask a question twice
            key = (*place, seen[place])
            if key not in questions:
                questions[key] = _question(line, fields, len(stages))
            _add_answer(questions[key], line, fields, index)
    return {
        "kind": kind,
        "seed": seed,
        "scores": list(fields.scores),
        "stages": stages,
        "questions": list(questions.values()),
    }


def _question(line: Prediction, fields: Kind, num_stages: int) -> Question:
    return {
        "group": fields.group(line),
        "question": line[fields.question],
        "reference": line[fields.reference],
        "texts": [],
        "answers": [-1] * num_stages,
        "scores": [None] * num_stages,
        "cut": [],
    }


def _add_answer(question: Question, line: Prediction, fields: Kind, index: int) -> None:
    text = line[fields.answer]
    if text not in question["texts"]:
        question["texts"].append(text)
    question["answers"][index] = question["texts"].index(text)
    question["scores"][index] = [_score(line, score) for score in fields.scores]
    if line.get("is_cut"):
        question["cut"].append(index)


def _score(line: Prediction, score: str) -> float | None:
    """A score to one decimal; None where the line has no such score."""
    if score == "right":
        return float(line["picked"] == line["answer"])
    value = line.get(score)
    return None if value is None else round(float(value), 1)
