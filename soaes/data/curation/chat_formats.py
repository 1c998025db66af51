"""Convert one dialogue record to messages, from the ShareGPT, Alpaca and messages formats.

Merged tables have the columns of several formats; those that are null or empty do not count. A
field that is not read is named, so that it can be counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
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
# The field that holds the dialogue, in order of precedence -> what is read beside it.
FORMATS = {
    "conversations": ("system",),
    "messages": ("system",),
    "instruction": ("system", "input", "output", "history"),
}
READ_ELSEWHERE = ("id", "category", "label", "task")
# Names under which formats take an answer out of the loss (0 or false) or leave it in.
LOSS_FLAGS = ("weight", "train", "loss", "loss_mask")
# How a text addresses the assistant. Infinity-Instruct has such system prompts as answers that
# stand before the first question.
SYSTEM_PROMPT = re.compile(
    r"\Z|you (?:are|should|will|must|have)\b|your (?:task|job|goal|role)\b|user will\b|given an?\b"
    r"|explain how you\b|act as\b|imagine you\b|你是|您是|你现在是|你的(?:任务|角色|职责)"
    r"|你(?:将|需要|应|必须)|请你?扮演|扮演|假设你|假如你|作为一[个名位]",
    re.IGNORECASE,
)
EMPTY: tuple[object, ...] = (None, "", [], {})


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
    """A message before cleaning."""

    role: str
    content: str
    loss: bool = True  # whether an answer bears loss


class Dialogue(NamedTuple):
    """A record as messages."""

    messages: list[Message]
    num_removed: int  # control tokens that were removed from them
    unread: set[str]  # fields that hold something and were not read
    moved_system: bool = False  # whether the system prompt stood as an answer


def messages(record: dict[str, Any]) -> Dialogue:
    """Return the messages of a record, cleaned.

    The messages are an optional system message, then user and assistant in turn, with an answer at
    the end.

    Raises:
        RecordFormatError: if the record is no such dialogue.
    """
    turns, unread = _turns(record)
    moved_system = _begins_with_system(turns)
    if moved_system:
        turns = [Turn("system", turns[0].content), *turns[1:]]
    turns = _with_system(record.get("system"), turns)
    cleaned: list[Message] = []
    num_removed = 0
    for turn in turns:
        content, count = clean(turn.content)
        num_removed += count
        if turn.role == "system" and not content:
            continue
        message: Message = {"role": turn.role, "content": content}
        if not turn.loss:
            message["loss"] = False
        cleaned.append(message)
    _check_order(cleaned)
    answers = [message for message in cleaned if message["role"] == "assistant"]
    if not any(answer.get("loss", True) for answer in answers):
        raise RecordFormatError("no answer bears loss")
    return Dialogue(cleaned, num_removed, unread, moved_system)


def categories(record: dict[str, Any]) -> list[str]:
    """Return the record's categories or labels, each once, in their order; [] if it has none.

    A label is a text, a list of texts, an object of such lists (Infinity-Instruct: abilities and
    their categories, in two languages), or one of these written as JSON.
    """
    for field in ("category", "label"):
        labels = [clean(label)[0] for label in _strings(_parsed(record.get(field)))]
        if any(labels):
            return list(dict.fromkeys(filter(None, labels)))
    return []


def first_filled(record: dict[str, Any], fields: Sequence[str]) -> str | None:
    """Return the first field that holds something, else the first that is there at all."""
    present = [field for field in fields if record.get(field) is not None]
    filled = [field for field in present if record[field] not in EMPTY]
    return next(iter(filled or present), None)


def unread_fields(record: dict[str, Any], read: Sequence[str]) -> set[str]:
    """Return the fields that hold something and are not among those that are read."""
    return {field for field, value in record.items() if field not in read and value not in EMPTY}


def _turns(record: dict[str, Any]) -> tuple[list[Turn], set[str]]:
    """Return the turns of a record, and its fields that are not read."""
    field = first_filled(record, list(FORMATS))
    if field is None:
        names = ", ".join(map(str, record))[:80]
        raise RecordFormatError("no conversations, messages or instruction", f"fields: {names}")
    unread = unread_fields(record, (field, *FORMATS[field], *READ_ELSEWHERE))
    if field == "instruction":
        turns = _alpaca(record)
    else:
        turns, unread_in_turns = _listed(record[field], field)
        unread |= unread_in_turns
    return turns, unread


def _listed(rows: object, field: str) -> tuple[list[Turn], set[str]]:
    """Return the turns of the ShareGPT and messages formats, and their fields that are not read."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise RecordFormatError(f"{field} is not a list of objects")
    turns = []
    unread: set[str] = set()
    for row in rows:
        role_field = first_filled(row, ("from", "role")) or "role"
        text_field = first_filled(row, ("value", "content")) or "content"
        role = _role(row.get(role_field))
        content = _text(row.get(text_field), field)
        flags = {name: row[name] for name in LOSS_FLAGS if row.get(name) is not None}
        bears_loss = True
        if role == "assistant":
            bears_loss = _bears_loss(flags)
        else:
            flags = {name: value for name, value in flags.items() if value == 0}
        turns.append(Turn(role, content, bears_loss))
        others = unread_fields(row, (role_field, text_field, *flags))
        unread |= {f"{field}[].{name}" for name in others}
    return turns, unread


def _bears_loss(flags: dict[str, object]) -> bool:
    """Tell whether an answer is left in the loss: no flag takes it out."""
    for name, value in flags.items():
        if value not in (0, 1):
            raise RecordFormatError(f"{name} of an answer is neither 0 nor 1", repr(value)[:40])
    return all(flags.values())


def _alpaca(record: dict[str, Any]) -> list[Turn]:
    fields = [field for field in ("instruction", "input") if not _is_absent(record.get(field))]
    question = "\n".join([_text(record[field], field) for field in fields])
    turns = []
    for past_question, past_answer in _history(record.get("history")):
        turns.append(Turn("user", _text(past_question, "history")))
        turns.append(Turn("assistant", _text(past_answer, "history")))
    turns.append(Turn("user", question))
    turns.append(Turn("assistant", _text(record.get("output"), "output")))
    return turns


def _history(rows: object) -> list[list[object]]:
    if _is_absent(rows) or rows == []:
        return []
    error = RecordFormatError("history is not a list of pairs")
    if not isinstance(rows, list):
        raise error
    if not all(isinstance(row, list) and len(row) == 2 for row in rows):
        raise error
    return rows


def _begins_with_system(turns: Sequence[Turn]) -> bool:
    """Tell whether a system prompt stands as an answer before the first question."""
    if [turn.role for turn in turns[:2]] != ["assistant", "user"]:
        return False
    return SYSTEM_PROMPT.match(turns[0].content.strip()) is not None


def _with_system(system: object, turns: list[Turn]) -> list[Turn]:
    """Put the record's own system prompt in front of its turns."""
    if _is_absent(system):
        return turns
    prompt = Turn("system", _text(system, "system"))
    if not turns or turns[0].role != "system" or not turns[0].content.strip():
        return [prompt, *turns]
    if prompt.content.strip() not in ("", turns[0].content.strip()):
        raise RecordFormatError("two different system prompts")
    return turns


def _is_absent(value: object) -> bool:
    """Tell an absent text; a number is none, and 0 no less than 12."""
    return value is None or value == ""


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


def _parsed(value: object) -> object:
    """Return what a label holds that is written as JSON: a list or an object in a string."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


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
