"""Divide identifiers and questions between splits, deterministically by a seed."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, TypeVar

from soaes.data.records import Message, QuestionRecord

Record = TypeVar("Record")


def held_out(identifiers: Sequence[str], share: float, seed: int) -> set[str]:
    """Choose the given share of the identifiers, at least one, independently of their order."""
    count = max(1, round(share * len(identifiers)))
    return set(_shuffled(identifiers, seed)[:count])


def question_key(messages: Sequence[Message]) -> str:
    """Return a key that is equal for equal questions.

    It covers all messages but the system prompt and the last answer, and ignores case, full or
    half width, and white space.
    """
    contents = [message["content"] for message in messages[:-1] if message["role"] != "system"]
    return normalised("\n".join(contents))


def normalised(text: str) -> str:
    """Return a text without its case, its full or half width, and its white space."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"\s+", "", text)


def sample(
    records: Sequence[Record],
    count: int | None,
    seed: int,
    key: Callable[[Any], str] = itemgetter("id"),
) -> list[Record]:
    """Choose `count` of the records by a seed, independently of their order; None: all.

    A larger sample holds every smaller one of the same seed.

    Args:
        records: what to choose from.
        count: how many; all where it covers them.
        seed: decides which.
        key: what tells records apart, by default their `id`.

    Returns:
        The chosen records in the order of `records`.
    """
    if count is None or count >= len(records):
        return list(records)
    chosen = set(_shuffled([key(record) for record in records], seed)[:count])
    return [record for record in records if key(record) in chosen][:count]


def split(
    train: Sequence[QuestionRecord], missing: Sequence[str], seed: int, one_in: int = 10
) -> dict[str, list[QuestionRecord]]:
    """Move one in `one_in` of the train questions to each missing split.

    Each task is divided on its own, and no question comes into two splits. A task that has no more
    questions than there are missing splits stays in train.

    Args:
        train: the records of the train split.
        missing: names of the splits to fill.
        seed: decides which questions move.
        one_in: of so many questions of a task, one moves to each split; at least one question.

    Returns:
        The records of `train` and of each missing split.
    """
    # Task -> its different questions in order of appearance (a dict serves as an ordered set). A
    # question that occurs under several tasks belongs to the first.
    questions_of_task: dict[str, dict[str, None]] = defaultdict(dict)
    task_of: dict[str, str] = {}
    for record in train:
        key = question_key(record["messages"])
        task = task_of.setdefault(key, record["task"])
        questions_of_task[task][key] = None

    split_of: dict[str, str] = {}
    for questions in questions_of_task.values():
        if len(questions) <= len(missing):
            continue
        order = _shuffled(list(questions), seed)
        count = max(1, round(len(questions) / one_in))
        for index, name in enumerate(missing):
            moved = order[index * count : (index + 1) * count]
            split_of |= dict.fromkeys(moved, name)

    parts: dict[str, list[QuestionRecord]] = {name: [] for name in ("train", *missing)}
    for record in train:
        parts[split_of.get(question_key(record["messages"]), "train")].append(record)
    return parts


def _shuffled(keys: Sequence[str], seed: int) -> list[str]:
    return sorted(keys, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())
