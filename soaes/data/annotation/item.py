"""What people review, what they decide, and the export that holds both.

The contract between the stages that make items (soaes.stages.synthesis), the review page and
`adopt`. An export is a folder:

| file | content |
|---|---|
| items.jsonl | a `ReviewItem` a line, by id |
| decisions.jsonl | a `Decision` a line, by item, reviewer and `second` |
| account.json | counts of both, computed from them |

Its bytes follow from its content alone: whoever reads an export and writes it again gets the same
bytes, in whatever order items and decisions come.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict, cast, get_args

from soaes.data.curation.document import SURROGATE
from soaes.pipeline import validation
from soaes.pipeline.store import write_json, write_text

ITEMS = "items.jsonl"
DECISIONS = "decisions.jsonl"
ACCOUNT = "account.json"
RUBRIC = "rubric.md"  # by what people decide, beside the items of a stage
REVIEW = "review.json"  # of the review page: how it was done, and the bound on what nobody read
EXPORTED = (ITEMS, DECISIONS, ACCOUNT, REVIEW)

Kind = Literal["qa", "relevance", "near_duplicate"]
Task = Literal["qa", "report", ""]
SplitHint = Literal["", "dev", "test"]
Verdict = Literal["accept", "edit", "reject", "yes", "no", "skip"]

VERDICTS: Mapping[str, tuple[str, ...]] = {
    "qa": ("accept", "edit", "reject", "skip"),
    "relevance": ("yes", "no", "skip"),
    "near_duplicate": ("yes", "no", "skip"),
}


class ReviewDocument(TypedDict):
    """A document, or a part of one, that an item is about."""

    id: str
    title: str
    source: str  # the file relative to the data root, with the place in it
    offset: int  # of `text` in the document, in characters; 0 for a whole document
    text: str


class Sample(TypedDict):
    """How an item was drawn from all that there are."""

    draw: str  # digest of the draw, which tells it from others
    stratum: str
    size: int  # of the stratum: how many could have been drawn
    probability: float  # with which the item was drawn, in (0, 1]


class ReviewItem(TypedDict):
    """One thing to decide; a line of items.jsonl."""

    id: str  # see `item_id`
    kind: Kind
    task: Task  # of a question; "" for the other kinds
    split_hint: SplitHint  # dev and test items are reviewed first, and all of them
    question: str
    answer: str
    document: ReviewDocument
    other: NotRequired[ReviewDocument]  # of near_duplicate, and of no other kind
    span: list[int]  # [start, end] characters of document.text; [] where there is none
    origin: str  # digest of the model's call, or file:line of an import
    model: str  # which wrote the answer; "" where no model did
    sample: NotRequired[Sample]  # of relevance and near_duplicate


class Decision(TypedDict):
    """One person's verdict on one item; a line of decisions.jsonl."""

    item: str  # id
    reviewer: str
    verdict: Verdict
    reason: str  # of a rejection, else "" or a remark
    question: str  # as edited; the item's where nothing was edited
    answer: str  # likewise
    seconds: float  # spent
    time: str  # UTC, in ISO format: 2026-01-31T08:00:00Z; "" of an import that has none
    second: bool  # the item was given blindly a second time


class Export(NamedTuple):
    """The content of an export."""

    items: list[ReviewItem]
    decisions: list[Decision]


def item_id(item: Mapping[str, Any]) -> str:
    """Return the id that an item has by its content: 16 hexadecimal digits.

    Who wrote the answer, which split it may go to, and how it was drawn are no part of the content.
    """
    content = [item["kind"], item["task"], item["question"], item["answer"], item["span"]]
    for name in ("document", "other"):
        document = item.get(name)
        if document:
            content += [document["id"], document["offset"], document["text"]]
    text = json.dumps(content, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def review_item(
    kind: Kind,
    *,
    document: ReviewDocument,
    task: Task = "",
    split_hint: SplitHint = "",
    question: str = "",
    answer: str = "",
    other: ReviewDocument | None = None,
    span: tuple[int, int] | None = None,
    origin: str = "",
    model: str = "",
    sample: Sample | None = None,
) -> ReviewItem:
    """Return an item with its id; the arguments are the fields of `ReviewItem`."""
    item: ReviewItem = {
        "id": "",
        "kind": kind,
        "task": task,
        "split_hint": split_hint,
        "question": question,
        "answer": answer,
        "document": document,
        "span": list(span or ()),
        "origin": origin,
        "model": model,
    }
    if other is not None:
        item["other"] = other
    if sample is not None:
        item["sample"] = sample
    item["id"] = item_id(item)
    return item


def window(text: str, start: int, end: int, context: int) -> tuple[int, int]:
    """Return a part of a text around a passage, cut at line breaks where there are any.

    Args:
        text: The text.
        start: Where the passage begins.
        end: Where it ends.
        context: Most characters that are shown on either side.
    """
    first = max(0, start - context)
    last = min(len(text), end + context)
    if first:
        line = text.find("\n", first, start)
        first = line + 1 if line >= 0 else first
    if last < len(text):
        line = text.rfind("\n", end, last)
        last = line if line >= 0 else last
    return first, last


def check_item(item: Mapping[str, Any], place: str) -> ReviewItem:
    """Check that a record is an item.

    Args:
        item: The record.
        place: Where it stands, for the message: `items.jsonl:12`.

    Raises:
        ValueError: A field is missing, unknown or wrong, or the id is not that of the content.
    """
    fields = ReviewItem.__annotations__.keys()
    _check_fields(item, fields, place, optional={"other", "sample"})
    texts = ("id", "kind", "task", "split_hint", "question", "answer", "origin", "model")
    _check_types(item, dict.fromkeys(texts, str), place)
    _check_word(item, "kind", get_args(Kind), place)
    _check_word(item, "task", get_args(Task), place)
    _check_word(item, "split_hint", get_args(SplitHint), place)
    has_other = "other" in item
    if has_other != (item["kind"] == "near_duplicate"):
        raise ValueError(f"{place}: `other` belongs to a near_duplicate, and to no other kind")
    for name in ("document", "other") if has_other else ("document",):
        _check_document(item[name], f"{place}: {name}")
    _check_span(item["span"], len(item["document"]["text"]), place)
    if "sample" in item:
        _check_sample(item, place)
    if item["id"] != item_id(item):
        raise ValueError(
            f"{place}: id={item['id']}: its content has the id {item_id(item)}; an item is never "
            "edited, a decision is: give changed questions and answers there"
        )
    return cast(ReviewItem, dict(item))


def check_decision(decision: Mapping[str, Any], kind: str, place: str) -> Decision:
    """Check that a record is a decision on an item of a kind; see `check_item`.

    Raises:
        ValueError: A field is missing, unknown or wrong, or the kind has no such verdict.
    """
    _check_fields(decision, Decision.__annotations__.keys(), place)
    texts = ("item", "reviewer", "verdict", "reason", "question", "answer", "time")
    _check_types(decision, dict.fromkeys(texts, str), place)
    _check_types(decision, {"second": bool}, place)
    _check_word(decision, "verdict", VERDICTS[kind], place)
    try:
        validation.check_at_least("seconds", decision["seconds"], 0, "the time spent")
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    if not decision["reviewer"].strip():
        raise ValueError(f"{place}: reviewer is empty; name who decided")
    try:
        is_utc = datetime.fromisoformat(decision["time"]).utcoffset() == UTC.utcoffset(None)
    except ValueError:
        is_utc = decision["time"] == ""
    if not is_utc:
        raise ValueError(
            f"{place}: time={decision['time']}: must be UTC in ISO format, as in "
            "2026-01-31T08:00:00Z"
        )
    return cast(Decision, dict(decision))


def read_items(path: Path) -> list[ReviewItem]:
    """Read items.jsonl.

    Raises:
        ValueError: There is no such file, a line is no item, or two have one id.
    """
    items: dict[str, ReviewItem] = {}
    for place, record in _records(path):
        item = check_item(record, place)
        if item["id"] in items:
            raise ValueError(f"{place}: id={item['id']} stands twice; drop one of the two lines")
        items[item["id"]] = item
    return list(items.values())


def read_export(folder: Path) -> Export:
    """Read an export; decisions.jsonl may be missing, where nothing is decided yet.

    Raises:
        ValueError: A line is not what it must be, a decision is about no item of the export, or a
            reviewer decided twice on one item.
    """
    items = read_items(folder / ITEMS)
    kinds = {item["id"]: item["kind"] for item in items}
    decisions: dict[tuple[str, str, bool], Decision] = {}
    path = folder / DECISIONS
    for place, record in _records(path) if path.exists() else ():
        identifier = record.get("item")
        if not isinstance(identifier, str) or identifier not in kinds:
            raise ValueError(f"{place}: item={identifier}: {folder / ITEMS} has no such item")
        decision = check_decision(record, kinds[identifier], place)
        key = _decision_key(decision)
        if key in decisions:
            raise ValueError(
                f"{place}: {decision['reviewer']} decided twice on {identifier}; keep one of the "
                "two lines"
            )
        decisions[key] = decision
    return Export(items, list(decisions.values()))


def write_items(path: Path, items: Iterable[ReviewItem]) -> None:
    """Write items.jsonl atomically, by id."""
    ordered = sorted(items, key=lambda item: item["id"])
    _write_lines(path, (_in_order(item, ReviewItem) for item in ordered))


def write_export(
    folder: Path, items: Iterable[ReviewItem], decisions: Iterable[Decision]
) -> dict[str, Any]:
    """Write an export, each file atomically; the folder is made if there is none.

    Returns:
        The account that account.json holds.
    """
    items, decisions = list(items), sorted(decisions, key=_decision_key)
    account = export_account(items, decisions)
    folder.mkdir(parents=True, exist_ok=True)
    write_items(folder / ITEMS, items)
    _write_lines(folder / DECISIONS, (_in_order(decision, Decision) for decision in decisions))
    write_json(folder / ACCOUNT, account)
    return account


def export_account(items: list[ReviewItem], decisions: list[Decision]) -> dict[str, Any]:
    """Return the counts of an export, in alphabetical order."""
    decided = {decision["item"] for decision in decisions}
    return {
        "items": len(items),
        "items_decided": len(decided),
        "items_by_kind": _counts(item["kind"] for item in items),
        "items_by_task": _counts(item["task"] for item in items if item["task"]),
        "decisions": len(decisions),
        "decisions_second": sum(decision["second"] for decision in decisions),
        "decisions_by_verdict": _counts(decision["verdict"] for decision in decisions),
        "decisions_by_reviewer": _counts(decision["reviewer"] for decision in decisions),
        "reasons": _counts(
            decision["reason"] for decision in decisions if decision["verdict"] == "reject"
        ),
        "seconds": round(sum(decision["seconds"] for decision in decisions), 3),
    }


def _counts(words: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))


def _decision_key(decision: Mapping[str, Any]) -> tuple[str, str, bool]:
    """Return what tells decisions apart, in the order of the file."""
    return decision["item"], decision["reviewer"], decision["second"]


def _in_order(record: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """Return a record with its fields in the order in which its class lists them."""
    ordered = {name: record[name] for name in kind.__annotations__ if name in record}
    parts = {"document": ReviewDocument, "other": ReviewDocument, "sample": Sample}
    for name in parts.keys() & ordered.keys():
        fields = parts[name].__annotations__
        ordered[name] = {field: ordered[name][field] for field in fields}
    return ordered


def _write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    write_text(path, "".join(lines))


def _records(path: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yield (place, record) for each line of a file."""
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ValueError(
            f"{path}: there is no such file; docs/annotation.md has the format"
        ) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: must be UTF-8 ({error.reason} at byte {error.start})") from None
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{place}: not JSON ({error})") from None
        if not isinstance(record, dict):
            raise ValueError(f"{place}: must be a JSON object, and is {type(record).__name__}")
        yield place, record


def _check_fields(
    record: Mapping[str, Any],
    fields: Iterable[str],
    place: str,
    optional: Iterable[str] = (),
) -> None:
    missing = [name for name in fields if name not in record and name not in set(optional)]
    unknown = sorted(set(record) - set(fields))
    if missing:
        raise ValueError(
            f"{place}: {', '.join(missing)} missing; docs/annotation.md has the format"
        )
    if unknown:
        raise ValueError(f"{place}: unknown field {', '.join(unknown)}; take it out")


def _check_types(record: Mapping[str, Any], types: Mapping[str, type], place: str) -> None:
    for name, kind in types.items():
        if not isinstance(record[name], kind):
            found = type(record[name]).__name__
            raise ValueError(f"{place}: {name} must be {kind.__name__}, and is {found}")
        if kind is str and SURROGATE.search(record[name]):
            raise ValueError(f"{place}: {name} holds half a character (a lone surrogate)")


def _check_word(
    record: Mapping[str, Any],
    name: str,
    options: tuple[str, ...],
    place: str,
) -> None:
    if record[name] not in options:
        words = ", ".join(option or '""' for option in options)
        raise ValueError(f"{place}: {name}={record[name]}: must be one of {words}")


def _check_document(document: Any, place: str) -> None:
    if not isinstance(document, dict):
        raise ValueError(f"{place} must be an object with id, title, source, offset and text")
    _check_fields(document, ReviewDocument.__annotations__.keys(), place)
    _check_types(document, dict.fromkeys(("id", "title", "source", "text"), str), place)
    offset = document["offset"]
    if isinstance(offset, bool) or not isinstance(offset, int) or offset < 0:
        raise ValueError(f"{place}: offset={offset}: must be a whole number of at least 0")


def _check_sample(item: Mapping[str, Any], place: str) -> None:
    sample = item["sample"]
    if item["kind"] == "qa":
        raise ValueError(f"{place}: `sample` belongs to relevance and near_duplicate, not to qa")
    if not isinstance(sample, dict):
        raise ValueError(f"{place}: sample must be an object with draw, stratum, size, probability")
    _check_fields(sample, Sample.__annotations__.keys(), f"{place}: sample")
    _check_types(sample, {"draw": str, "stratum": str}, f"{place}: sample")
    try:
        validation.check_whole("size", sample["size"], 1, "how many could have been drawn")
        validation.check_in_range(
            "probability", sample["probability"], "(0, 1]", "with which the item was drawn"
        )
    except ValueError as error:
        raise ValueError(f"{place}: sample: {error}") from None


def _check_span(span: Any, length: int, place: str) -> None:
    """Check that a span is empty, or lies in a text of a length."""
    is_list = isinstance(span, list) and all(type(end) is int for end in span)
    if is_list and not span:
        return
    is_pair = is_list and len(span) == 2
    if not is_pair or not 0 <= span[0] < span[1] <= length:
        place_and_value = f"{place}: span={span}"
        rule = f"must be [] or [start, end] with 0 <= start < end <= {length}"
        raise ValueError(f"{place_and_value}: {rule}, the characters of document.text")
