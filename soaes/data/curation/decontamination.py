"""Decontamination: nothing that trains holds a question that is held out for evaluation.

One rule for everything that trains (general, corpus, dialogue, qa/train, examples of exams):

- A conversation holds a question if one of its user turns, or its beginning up to a user turn,
  equals it.
- A document holds a question if a run of its sentences equals it.
- Either holds an exam question if a run of its sentences equals it and all its options occur.

Texts are equal if they differ in case, width, white space or outer punctuation alone. Knows texts,
not files or splits.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from soaes.data.records import ExamQuestion, Message
from soaes.data.splits import normalised, question_key

# A sentence may start after these: line breaks, ends of sentences, labels, numbers, quotes.
STARTS = re.compile(r"(?<=[\n。.！!？?；;：:、…)）(（\]】\[【“”\"「『《])")
LEADING_PUNCTUATION = re.compile(r"^[\W_]+")
OUTER_PUNCTUATION = re.compile(r"^[\W_]+|[\W_]+$")
# Shorter questions ("为什么？") are sentences of any document. A conversation is judged by turns.
MIN_CHARS = 5


@dataclass(frozen=True)
class HeldOutQuestion:
    """A question that nothing may train on."""

    split: str  # as the report names it: qa/test, exam/ceval
    text: str  # normalised
    options: frozenset[str] = frozenset()  # of an exam question, normalised


class HeldOutQuestions:
    """The questions that evaluation asks, to be looked for in what trains."""

    def __init__(self) -> None:
        self._turns: dict[str, str] = {}  # normalised question -> its split
        self._by_beginning: dict[str, list[HeldOutQuestion]] = defaultdict(list)

    def add(self, split: str, messages: Sequence[Message]) -> None:
        """Hold out the question of a conversation, whose last message is the answer."""
        text = _plain(question_key(messages))
        self._turns.setdefault(text, split)
        self._add(HeldOutQuestion(split, text))

    def add_exam(self, split: str, question: ExamQuestion) -> None:
        """Hold out an exam question."""
        text = _plain(normalised(question["question"]))
        self._add(HeldOutQuestion(split, text, _options(question)))

    def in_record(self, record: Mapping[str, Any]) -> str:
        """Return the split of the first held-out question in a record, or ""."""
        if "messages" in record:
            return self.in_messages(record["messages"])
        return self.in_text(record["text"])

    def in_messages(self, messages: Sequence[Message]) -> str:
        """Return the split of the first held-out question in a conversation, or ""."""
        body = [message for message in messages if message["role"] != "system"]
        for index, message in enumerate(body):
            if message["role"] != "user":
                continue
            beginning = "".join(normalised(turn["content"]) for turn in body[: index + 1])
            for text in (normalised(message["content"]), beginning):
                if split := self._turns.get(_plain(text)):
                    return split
        text = "\n".join(message["content"] for message in body)
        exams = (question for question in self._runs(text) if question.options)
        return next((question.split for question in exams), "")

    def in_text(self, text: str) -> str:
        """Return the split of the first held-out question in a document, or ""."""
        return next((question.split for question in self._runs(text)), "")

    def in_exam_example(self, example: ExamQuestion) -> str:
        """Return the split of a held-out exam question with the same words and options, or ""."""
        text = _plain(normalised(example["question"]))
        for question in self._by_beginning.get(text[:MIN_CHARS], ()):
            if question.text == text and question.options == _options(example):
                return question.split
        return ""

    def _add(self, question: HeldOutQuestion) -> None:
        self._by_beginning[question.text[:MIN_CHARS]].append(question)

    def _runs(self, text: str) -> Iterator[HeldOutQuestion]:
        """Yield the held-out questions of at least MIN_CHARS that a run of sentences equals."""
        whole, starts = _sentences(text)
        for start in starts:
            for question in self._by_beginning.get(whole[start : start + MIN_CHARS], ()):
                end = start + len(question.text)
                if len(question.text) < MIN_CHARS or not whole.startswith(question.text, start):
                    continue
                ends_here = end in starts or end == len(whole) or not whole[end].isalnum()
                if ends_here and all(option in whole for option in question.options):
                    yield question


def _sentences(text: str) -> tuple[str, dict[int, None]]:
    """Return a text, normalised, and where its sentences start in it."""
    sentences: list[str] = []
    starts: dict[int, None] = {}  # an ordered set
    position = 0
    for part in STARTS.split(text):
        sentence = normalised(part)
        starts[position + len(sentence) - len(LEADING_PUNCTUATION.sub("", sentence))] = None
        position += len(sentence)
        sentences.append(sentence)
    return "".join(sentences), starts


def _options(question: ExamQuestion) -> frozenset[str]:
    options = (question["A"], question["B"], question["C"], question["D"])
    return frozenset(normalised(option) for option in options)


def _plain(text: str) -> str:
    """Drop outer punctuation, unless there is nothing else."""
    return OUTER_PUNCTUATION.sub("", text) or text
