"""What an answer knows: does it speak of what was asked, and does it name the right value?

Rouge counts words, most of which are the wording of a sentence. A question that says what it asks
for (`attribute`) and what is right (`values`) can be judged by its facts alone: a model first
learns which kind of value an answer takes, and later which value it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Record = Mapping[str, Any]  # a QuestionRecord
Vocabulary = Mapping[str, set[str]]  # attribute -> the values that any question has of it


class Recall(NamedTuple):
    """Shares of the attributes that a question asks for, in 0..100."""

    attribute: float
    """Of which the answer names some value."""

    value: float
    """Of which the answer names the right value."""


def vocabulary(records: Iterable[Record]) -> dict[str, set[str]]:
    """Collect the values of every attribute that the records name.

    Args:
        records: Questions of all splits, of which those without `values` are passed over.
    """
    values: dict[str, set[str]] = {}
    for record in records:
        for attribute, value in _asked(record):
            values.setdefault(attribute, set()).add(value)
    return values


def recall(record: Record, answer: str, values: Vocabulary) -> Recall | None:
    """Judge an answer by the facts that its question asks for.

    Args:
        record: The question.
        answer: The answer's text.
        values: The values of every attribute.

    Returns:
        The shares; None where the question does not say what it asks for.
    """
    asked = _asked(record)
    if not asked:
        return None
    spoken_of = [any(value in answer for value in values[name]) for name, _ in asked]
    right = [value in answer for _, value in asked]
    return Recall(100 * sum(spoken_of) / len(asked), 100 * sum(right) / len(asked))


def _asked(record: Record) -> Sequence[tuple[str, str]]:
    """Return the (attribute, right value) pairs of a question."""
    if "attribute" not in record or "values" not in record:
        return []
    attributes = record["attribute"]
    names = [attributes] if isinstance(attributes, str) else attributes
    return list(zip(names, record["values"], strict=True))
