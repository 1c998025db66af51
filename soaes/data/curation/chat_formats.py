"""Bring one dialogue record to messages: ShareGPT, Alpaca and messages layouts.

Knows one dict: not files, not templates, not tokens. A record that does not fit raises Misfit with the reason.
"""

from soaes.data.curation.text_cleaning import clean

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
}


class RecordFormatError(ValueError):
    """Why a record is no dialogue; the second argument is a detail for the eye."""


def messages(record: dict) -> tuple[list[dict[str, str]], int]:
    """[{"role", "content"}], cleaned, and the number of control-token markers taken out.

    The order is: a system message or none, then user and assistant in turn, an answer at the end.
    """
    turns = [
        turn for turn in _turns(record) if turn[0] != "system" or turn[1]
    ]  # an empty system prompt is none
    cleaned = [(role, *clean(content)) for role, content in turns]
    _check([(role, content) for role, content, _ in cleaned])
    return [{"role": role, "content": content} for role, content, _ in cleaned], sum(
        row[2] for row in cleaned
    )


def category(record: dict) -> str:
    """The record's own category or label; "" where it has none. Lists and dicts of labels are joined."""
    for field in ("category", "label"):
        if label := "、".join(_strings(record.get(field))):
            return clean(label)[0]
    return ""


def _turns(record: dict) -> list[tuple[str, str]]:
    if "conversations" in record:
        return _system(record) + _listed(record["conversations"], "conversations")
    if "messages" in record:
        return _listed(record["messages"], "messages")
    if "instruction" in record:
        return _system(record) + _alpaca(record)
    raise RecordFormatError(
        "no conversations, messages or instruction", f"fields: {', '.join(map(str, record))[:80]}"
    )


def _listed(rows: object, field: str) -> list[tuple[str, str]]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise RecordFormatError(f"{field} is not a list of objects")
    return [
        (
            _role(row.get("from", row.get("role"))),
            _text(row.get("value", row.get("content")), field),
        )
        for row in rows
    ]


def _alpaca(record: dict) -> list[tuple[str, str]]:
    asked = [_text(record[field], field) for field in ("instruction", "input") if record.get(field)]
    turns = []
    for pair in _history(record.get("history")):
        turns += [("user", _text(pair[0], "history")), ("assistant", _text(pair[1], "history"))]
    return [
        *turns,
        ("user", "\n".join(asked)),
        ("assistant", _text(record.get("output"), "output")),
    ]


def _history(rows: object) -> list:
    if not rows:  # absent, null, "" and [] are all in use
        return []
    if not isinstance(rows, list) or not all(
        isinstance(row, list) and len(row) == 2 for row in rows
    ):
        raise RecordFormatError("history is not a list of pairs")
    return rows


def _system(record: dict) -> list[tuple[str, str]]:
    return [("system", _text(record["system"], "system"))] if record.get("system") else []


def _role(name: object) -> str:
    if not isinstance(name, str) or name.strip().lower() not in ROLES:
        raise RecordFormatError(
            "unknown role", name[:40] if isinstance(name, str) else f"it is {type(name).__name__}"
        )
    return ROLES[name.strip().lower()]


def _text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise RecordFormatError(f"{field} holds no text", f"it is {type(value).__name__}")
    return value


def _check(turns: list[tuple[str, str]]) -> None:
    body = turns[1:] if turns and turns[0][0] == "system" else turns
    if not body:
        raise RecordFormatError("no turns")
    for at, (role, content) in enumerate(body):
        expected = ("user", "assistant")[at % 2]
        if role != expected:
            raise RecordFormatError(
                "turns out of order", f"turn {at + 1} is {role}, not {expected}"
            )
        if not content:
            raise RecordFormatError("empty question" if role == "user" else "empty answer")
    if len(body) % 2:
        raise RecordFormatError("no answer at the end")


def _strings(value: object, depth: int = 2) -> list[str]:
    """Texts in a label; {"cate_zh": ["财务"]} is as deep as labels go."""
    if isinstance(value, str):
        return [value] if value.strip() else []
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for part in parts for text in _strings(part, depth - 1)] if depth else []
