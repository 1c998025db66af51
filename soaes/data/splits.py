"""Divide by a seed. Knows identifiers and questions: not files, not what is learned from them."""

import hashlib
import re
import unicodedata
from collections import defaultdict


def held_out(identifiers: list[str], share: float, seed: int) -> set[str]:
    """The given share of the identifiers, at least one; the order in which they come does not matter."""
    return set(_shuffled(identifiers, seed)[: max(1, round(share * len(identifiers)))])


def question(messages: list[dict]) -> str:
    """What is asked, as a key: all but the system prompt and the last answer, without case, width and spaces."""
    asked = "\n".join(
        message["content"] for message in messages[:-1] if message["role"] != "system"
    )
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", asked).casefold())


def split(
    train: list[dict], missing: list[str], seed: int, one_in: int = 10
) -> dict[str, list[dict]]:
    """Move one in `one_in` of the train questions to each missing split, task by task, no question into two."""
    tasks: dict[str, dict[str, None]] = defaultdict(dict)
    task_of: dict[str, str] = {}
    for row in train:
        asked = question(row["messages"])
        tasks[task_of.setdefault(asked, row["task"])][asked] = None
    place = {}
    for asked in tasks.values():
        order, tenth = _shuffled(list(asked), seed), max(1, round(len(asked) / one_in))
        for at, name in enumerate(missing if len(asked) > len(missing) else []):
            place |= dict.fromkeys(order[at * tenth : (at + 1) * tenth], name)
    parts: dict[str, list[dict]] = {name: [] for name in ("train", *missing)}
    for row in train:
        parts[place.get(question(row["messages"]), "train")].append(row)
    return parts


def _shuffled(keys: list[str], seed: int) -> list[str]:
    return sorted(keys, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())
