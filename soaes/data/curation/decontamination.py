"""Decontamination: nothing that trains holds a question that is held out for evaluation.

One rule for everything that trains (general, corpus, dialogue, qa/train, examples of exams):

- A conversation holds a question if one of its user turns, or its beginning up to a user turn,
  equals it.
- A document, or a user turn, holds a question of at least 12 letters and digits if it stands there
  between two marks: white space, punctuation, a label such as `12` or `A`. A shorter one must be a
  run of sentences.
- An exam question that is shorter, or whose words others have too (`下列说法正确的是`), is held
  only if all its options stand near it, in any order.

Texts are compared by letters and digits alone, whatever their case, width, white space, punctuation
and markup. A common n-gram is no sign: questions quote the laws that they ask about. Knows texts,
not files.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from soaes.data.curation import ngrams
from soaes.data.records import ExamQuestion, Message
from soaes.data.splits import normalised, question_key

HELD_OUT = "held_out.jsonl"  # a `QuestionRow` a line

# A sentence may start after these: line breaks, ends of sentences, labels, numbers, quotes.
STARTS = '\n。.！!？?；;：:、…)）(（]】[【“”"「『《'
OUTER_PUNCTUATION = re.compile(r"^[\W_]+|[\W_]+$")
# Shorter questions ("为什么？") are sentences of any document. A conversation is judged by turns.
MIN_CHARS = 5
SURE_CHARS = 12  # letters and digits from which a question is told from a sentence by its words
OPTIONS_WITHIN = 1000  # letters and digits around a question, among which its options stand
PIECE = 1 << 20  # characters of a text that are looked at together
MARGIN = 1 << 16  # characters around them, of which a question and its options may need some


class QuestionRow(TypedDict):
    """A held-out question as a record."""

    split: str
    stem: str
    options: list[str]


@dataclass(frozen=True)
class HeldOutQuestion:
    """A question that nothing may train on."""

    split: str  # as the report names it: qa/test, exam/ceval
    stem: str  # its letters and digits
    options: frozenset[str] = frozenset()  # of an exam question, likewise

    @cached_property
    def points(self) -> ngrams.CodePoints:
        """The code points of the stem."""
        return ngrams.code_points(self.stem)


class HeldOutQuestions:
    """The questions that evaluation asks, to be looked for in what trains."""

    def __init__(self) -> None:
        self._turns: dict[str, str] = {}  # key of a question -> its split
        self._by_stem: dict[str, list[HeldOutQuestion]] = defaultdict(list)
        # Hash of the first n characters -> the stems that begin so, of at least n characters.
        self._by_beginning: dict[int, dict[int, list[str]]] = {MIN_CHARS: {}, SURE_CHARS: {}}

    def add(self, split: str, messages: Sequence[Message]) -> None:
        """Hold out the question of a conversation, whose last message is the answer."""
        text = question_key(messages)
        self._turns.setdefault(_turn_key(text), split)
        self._add(HeldOutQuestion(split, _folded(text)))

    def add_exam(self, split: str, question: ExamQuestion) -> None:
        """Hold out an exam question."""
        self._add(HeldOutQuestion(split, _folded(question["question"]), _options(question)))

    def rows(self) -> Iterator[QuestionRow]:
        """Yield all questions as records, for `from_rows`."""
        for questions in self._by_stem.values():
            for question in questions:
                options = sorted(question.options)
                yield {"split": question.split, "stem": question.stem, "options": options}

    @staticmethod
    def from_rows(rows: Iterable[Mapping[str, Any]]) -> HeldOutQuestions:
        """Return questions to be looked for in documents; turns are not kept in records."""
        questions = HeldOutQuestions()
        for row in rows:
            options = frozenset(row["options"])
            questions._add(HeldOutQuestion(row["split"], row["stem"], options))
        return questions

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
                if split := self._turns.get(_turn_key(text)):
                    return split
            for question in self._held(message["content"]):
                if question.options or len(question.stem) >= SURE_CHARS:
                    return question.split
        text = "\n".join(message["content"] for message in body)
        exams = (question for question in self._held(text) if question.options)
        return next((question.split for question in exams), "")

    def in_text(self, text: str) -> str:
        """Return the split of the first held-out question in a document, or ""."""
        question = self.question_in(text)
        return question.split if question else ""

    def question_in(self, text: str) -> HeldOutQuestion | None:
        """Return the first held-out question in a document."""
        return next(self._held(text), None)

    def in_exam_example(self, example: ExamQuestion) -> str:
        """Return the split of a held-out exam question with the same words and options, or ""."""
        options = _options(example)
        for question in self._by_stem.get(_folded(example["question"]), ()):
            if question.options == options:
                return question.split
        return ""

    def _add(self, question: HeldOutQuestion) -> None:
        same_words = self._by_stem[question.stem]
        if any(question.options == other.options for other in same_words):
            return
        same_words.append(question)
        for n, stems in self._by_beginning.items():
            is_of_length = len(question.stem) >= n and (n == SURE_CHARS) == _is_sure(question.stem)
            if is_of_length and len(same_words) == 1:
                beginning = ngrams.ngram_hash(question.points[:n])
                stems.setdefault(beginning, []).append(question.stem)

    def _held(self, text: str) -> Iterator[HeldOutQuestion]:
        """Yield the held-out questions in a text in the order of their places.

        A long text is looked at in pieces, each with a margin of the text around it.
        """
        for start in range(0, len(text), PIECE):
            first = max(0, start - MARGIN)
            piece = _Text(text[first : start + PIECE + MARGIN])
            yield from self._held_in(piece, range(start - first, start - first + PIECE))

    def _held_in(self, text: _Text, places: range) -> Iterator[HeldOutQuestion]:
        """Yield the held-out questions that start in some places of a text."""
        for start, stem in sorted(self._stems_in(text)):
            if text.place(start) not in places:
                continue
            questions = self._by_stem[stem]
            is_told_by_words = _is_sure(stem) and len(questions) == 1
            for question in questions:
                if is_told_by_words or text.has_near(question.options, start, len(stem)):
                    yield question

    def _stems_in(self, text: _Text) -> Iterator[tuple[int, str]]:
        """Yield the stems in a text, and where they start."""
        for n, stems in self._by_beginning.items():
            if not stems or len(text.points) < n:
                continue
            begins, ends = text.marks if n == SURE_CHARS else text.sentences
            hashes = ngrams.ngram_hashes(text.points, n)
            starts = np.flatnonzero(begins[: len(hashes)])
            known = np.fromiter(stems, np.uint64, len(stems))
            for start in map(int, starts[np.isin(hashes[starts], known)]):
                for stem in stems[int(hashes[start])]:
                    end = start + len(stem)
                    if end < len(ends) and ends[end] and text.letters.startswith(stem, start):
                        yield start, stem


class _Text:
    """A text by its letters and digits, with the places where a question may begin and end."""

    def __init__(self, text: str) -> None:
        self.points, offsets = ngrams.folded_with_offsets(text)
        self.letters = ngrams.text_of(self.points)
        raw = ngrams.code_points(text)
        self._raw = raw
        # Between which characters of the text each letter stands: [0, first), ... [last, end)
        self._after = np.concatenate([[0], offsets + 1])
        self._before = np.concatenate([offsets, [len(raw)]])

    @cached_property
    def marks(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Where anything parts two letters: white space, punctuation, or another kind of letter."""
        is_apart = self._before > self._after
        is_apart[[0, -1]] = True
        is_ascii = self.points < 128
        is_apart[1:-1] |= is_ascii[1:] != is_ascii[:-1]
        return is_apart, is_apart

    @cached_property
    def sentences(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Where sentences may start; and where they end, which any punctuation does."""
        starts = self._holds(np.isin(self._raw, ngrams.code_points(STARTS)))
        spaces = np.isin(self._raw, ngrams.code_points(" \t\r\u3000\u00a0"))
        ends = starts | self._holds(~spaces)
        starts[0] = ends[-1] = True
        return starts, ends

    def place(self, letter: int) -> int:
        """Return which character of the text a letter is."""
        return int(self._before[letter])

    def has_near(self, options: frozenset[str], start: int, length: int) -> bool:
        """Tell whether all options stand near a question."""
        window = self.letters[max(0, start - OPTIONS_WITHIN) : start + length + OPTIONS_WITHIN]
        return all(option in window for option in options)

    def _holds(self, is_wanted: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Tell which gaps between letters hold a character that is wanted."""
        sums = np.concatenate([[0], np.cumsum(is_wanted)])
        return sums[self._before] > sums[self._after]


def _folded(text: str) -> str:
    return ngrams.text_of(ngrams.folded(text))


def _is_sure(stem: str) -> bool:
    return len(stem) >= SURE_CHARS


def _options(question: ExamQuestion) -> frozenset[str]:
    options = (question["A"], question["B"], question["C"], question["D"])
    return frozenset(_folded(option) or normalised(option) for option in options)


def _turn_key(text: str) -> str:
    """Return what is equal for equal turns: of a short one, whose marks matter, all but the outer.

    Thus `3-2=?` is not `32=?`.
    """
    letters = _folded(text)
    if _is_sure(letters):
        return letters
    plain = normalised(text)
    return OUTER_PUNCTUATION.sub("", plain) or plain
