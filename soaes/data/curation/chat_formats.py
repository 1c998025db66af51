"""Convert one dialogue record to messages, from the ShareGPT, Alpaca and messages formats."""

from __future__ import annotations

from typing import Any, NamedTuple

from soaes.data.curation.text_cleaning import clean
from soaes.data.records import Message

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
}


class RecordFormatError(ValueError):
    """A record is no dialogue.

    Args:
        reason: one of few texts, which are counted.
        detail: free text, which is only shown.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class Turn(NamedTuple):
    """A message before and after cleaning."""

    role: str
    content: str


def messages(record: dict[str, Any]) -> tuple[list[Message], int]:
    """Return the messages of a record, cleaned.

    The messages are an optional system message, then user and assistant in turn, with an answer at
    the end.

    Returns:
        The messages, and the number of control tokens that were removed from them.

    Raises:
        RecordFormatError: if the record is no such dialogue.
    """
    cleaned: list[Message] = []
    num_removed = 0
    for role, raw_content in _turns(record):
        if role == "system" and not raw_content:
            continue
        content, count = clean(raw_content)
        cleaned.append({"role": role, "content": content})
        num_removed += count
    _check_order(cleaned)
    return cleaned, num_removed


def category(record: dict[str, Any]) -> str:
    """Return the record's category or label; "" if it has none. Several labels are joined."""
    for field in ("category", "label"):
        label = "、".join(_strings(record.get(field)))
        if label:
            return clean(label)[0]
    return ""


def _turns(record: dict[str, Any]) -> list[Turn]:
    if "conversations" in record:
        return _system(record) + _listed(record["conversations"], "conversations")
    if "messages" in record:
        return _listed(record["messages"], "messages")
    if "instruction" in record:
        return _system(record) + _alpaca(record)
    field_names = ", ".join(map(str, record))[:80]
    raise RecordFormatError("no conversations, messages or instruction", f"fields: {field_names}")


def _listed(rows: object, field: str) -> list[Turn]:
    """Return the turns of the ShareGPT and messages formats."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise RecordFormatError(f"{field} is not a list of objects")
    turns = []
    for row in rows:
        role = _role(row.get("from", row.get("role")))
        content = _text(row.get("value", row.get("content")), field)
        turns.append(Turn(role, content))
    return turns


def _alpaca(record: dict[str, Any]) -> list[Turn]:
    fields = [field for field in ("instruction", "input") if record.get(field)]
    question = "\n".join([_text(record[field], field) for field in fields])
    turns = []
    for past_question, past_answer in _history(record.get("history")):
        turns.append(Turn("user", _text(past_question, "history")))
        turns.append(Turn("assistant", _text(past_answer, "history")))
    turns.append(Turn("user", question))
    turns.append(Turn("assistant", _text(record.get("output"), "output")))
    return turns


def _history(rows: object) -> list[list[object]]:
    if not rows:  # absent, null, "" and [] all occur
        return []
    error = RecordFormatError("history is not a list of pairs")
    if not isinstance(rows, list):
        raise error
    if not all(isinstance(row, list) and len(row) == 2 for row in rows):
        raise error
    return rows


def _system(record: dict[str, Any]) -> list[Turn]:
    if not record.get("system"):
        return []
    return [Turn("system", _text(record["system"], "system"))]


def _role(name: object) -> str:
    if not isinstance(name, str):
        raise RecordFormatError("unknown role", f"it is {type(name).__name__}")
    key = name.strip().lower()
    if key not in ROLES:
        raise RecordFormatError("unknown role", name[:40])
    return ROLES[key]


def _text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise RecordFormatError(f"{field} holds no text", f"it is {type(value).__name__}")
    return value


def _check_order(turns: list[Message]) -> None:
    body = turns[1:] if turns and turns[0]["role"] == "system" else turns
    if not body:
        raise RecordFormatError("no turns")
    for index, turn in enumerate(body):
        role = turn["role"]
        expected = ("user", "assistant")[index % 2]
        if role != expected:
            detail = f"turn {index + 1} is {role}, not {expected}"
            raise RecordFormatError("turns out of order", detail)
        if not turn["content"]:
            raise RecordFormatError("empty question" if role == "user" else "empty answer")
    if len(body) % 2:
        raise RecordFormatError("no answer at the end")


def _strings(value: object, depth: int = 2) -> list[str]:
    """Return the texts in a label; {"cate_zh": ["财务"]} is as deep as labels are nested."""
    if isinstance(value, str):
        return [value] if value.strip() else []
    if depth == 0:
        return []
    parts: list[object] = []
    if isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, list):
        parts = value
    return [text for part in parts for text in _strings(part, depth - 1)]
