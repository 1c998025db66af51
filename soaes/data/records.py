"""The records of the five artefacts that every data source gives: its contract with later stages.

A data source (conf/data) is a stage whose output folder holds

| artefact | file | record |
|---|---|---|
| general | general.jsonl | `DocumentRecord` |
| corpus | corpus.jsonl | `DocumentRecord` |
| dialogue | dialogue.jsonl | `DialogueRecord` |
| qa | qa/train.jsonl, dev.jsonl, test.jsonl, optionally unseen.jsonl | `QuestionRecord` |
| exam | exam/NAME/SPLIT/SUBJECT.csv | `ExamQuestion`, see soaes.data.curation.exam_files |

JSON files have one record per line, in UTF-8. `id` is unique within a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypedDict

LETTERS = "ABCD"  # of the options of an exam question


class Message(TypedDict):
    """One turn of a conversation."""

    role: str  # system (first message only), user or assistant
    content: str  # without control tokens such as <|im_end|>
    loss: NotRequired[bool]  # False: an answer that its author took out of the loss


class DocumentRecord(TypedDict):
    """A plain text: general text (retention, validation) or the domain corpus that CPT reads."""

    id: str
    text: str
    source: str  # where it comes from: a kind of the synthetic world, or file:line of a user's data


class DialogueRecord(TypedDict):
    """A general dialogue for stage-1 SFT."""

    id: str
    category: str | list[str]  # one or several; stage 1 reads those that data.categories lists
    messages: list[Message]  # user and assistant in turn, an answer at the end


class QuestionRecord(TypedDict):
    """A question about the domain with its answer, for stage-2 SFT and evaluation."""

    id: str
    task: Literal["qa", "report"]  # decides the maximal answer length and how results are grouped
    messages: list[Message]  # the last message is the reference answer
    subject: NotRequired[str]  # the enterprise asked about; the synthetic world only
    attribute: NotRequired[str | list[str]]  # what is asked for; the synthetic world only
    values: NotRequired[list[str]]  # the right value of each attribute, in the same order
    annotation: NotRequired[dict[str, Any]]  # who accepted it, and what it rests on


class ExamQuestion(TypedDict):
    """A multiple-choice question with four options."""

    subject: str  # few-shot examples are taken from the same subject
    question: str
    A: str
    B: str
    C: str
    D: str
    answer: Literal["A", "B", "C", "D"]


ExamSplits = dict[str, list[ExamQuestion]]  # "dev" (few-shot examples) and "test"


def categories_of(record: Mapping[str, Any]) -> list[str]:
    """Return the categories of a record; [] of a plain text, which has none."""
    category = record.get("category")
    if category is None:
        return []
    return [category] if isinstance(category, str) else category
