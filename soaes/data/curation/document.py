"""The records that curation passes from step to step, and the account that each step keeps.

A reader turns a file into `SourceDocument` and `Rejection`. From there on every step reads the
documents of the step before it and writes, through `StepOutput`, one folder:

| file | content |
|---|---|
| documents.jsonl | a `CuratedDocument` a line, in the order in which they were read |
| drops.jsonl | a `Drop` a line: each document that was dropped, each file or record rejected |
| account.json | documents and characters in and out; what each rule took, with samples |

account.json also has the accounts of the steps before (`earlier`), so that the last folder tells
the whole story. Nothing gets lost: documents in = out + dropped, and characters in = kept + removed
by named rules. `StepOutput` asserts both, so a step that forgets to name a rule fails. The memory
of a step grows with its rules and origins only, not with the documents.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NotRequired, TextIO, TypedDict, TypeVar

from soaes.pipeline.store import damaged, read_json, write_json

DOCUMENTS = "documents.jsonl"
DROPS = "drops.jsonl"
ACCOUNT = "account.json"

MAX_SAMPLES = 20  # of each rule
SAMPLE_CHARS = 120  # of the text before and after
CONTEXT_CHARS = 20  # of these, in front of the first difference
SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which UTF-8 cannot hold
REPLACEMENT = "\ufffd"
WARNED_SHARE = 0.3  # of an origin's documents or characters that one rule takes


@dataclass(frozen=True)
class SourceDocument:
    """A document as a reader finds it in a file.

    Attributes:
        text: Its text as it stands there, decoded and without markup.
        source: The file relative to the data root, with the place in it: `corpus/a.txt`,
            `corpus/a.jsonl:12` (line), `corpus/a.xlsx#Sheet1:12` (sheet and row).
        title: "" where the file has none.
        date: ISO date; "" where it is unknown.
        url: "" where it is unknown.
        page_starts: Offsets in `text` at which pages begin, in characters; empty without pages.
        unread: Fields of its record that hold something and were not read.
    """

    text: str
    source: str
    title: str = ""
    date: str = ""
    url: str = ""
    page_starts: tuple[int, ...] = ()
    unread: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # the reader may be the user's own
        for name in ("text", "source", "title", "date", "url"):
            value = getattr(self, name)
            if not isinstance(value, str):
                kind = type(value).__name__
                raise TypeError(f'{name} is {kind}: give text, "" where it is unknown')


@dataclass(frozen=True)
class Rejection:
    """What cannot be read: a file, a page or a record.

    Attributes:
        source: Where it is, as in `SourceDocument`.
        reason: One of few texts, which are counted.
        detail: Free text, which is only shown; it names the way out where there is one.
    """

    source: str
    reason: str
    detail: str = ""


Found = TypeVar("Found", SourceDocument, Rejection)


def encodable(found: Found) -> Found:
    """Return what a reader found with a mark for each half of a character, in any field.

    An escape in JSON or in a PDF can make one, and UTF-8 cannot hold it.
    """
    changed = {name: _marked(value) for name, value in vars(found).items()}
    return found if changed == vars(found) else replace(found, **changed)


def _marked(value: Any) -> Any:
    """Return a text, or each text of a tuple, with a mark for each half of a character."""
    if isinstance(value, tuple):
        return tuple(map(_marked, value))
    return SURROGATE.sub(REPLACEMENT, value) if isinstance(value, str) else value


# Reads one file: its path, and its name relative to the data root, with which sources begin.
Reader = Callable[[Path, str], Iterator[SourceDocument | Rejection]]


@dataclass(frozen=True)
class CleaningRule:
    """A rule of cleaning under the name by which it is switched and counted."""

    name: str
    function: Callable[[str], str]


class CuratedDocument(TypedDict):
    """A line of documents.jsonl; the fields of `SourceDocument`, and those below."""

    id: str  # the same in all steps; see `document_id`
    kind: str  # corpus or general
    source: str
    title: str
    date: str
    url: str
    origin: str  # first folder below corpus/ or general/; "" at the top
    digest: str  # SHA-256 of the text as it was read
    text: str
    page_starts: NotRequired[list[int]]  # until a step changes the text
    scores: NotRequired[dict[str, float]]  # of selection


class Drop(TypedDict):
    """A line of drops.jsonl."""

    id: str  # "" for a file or record that became no document
    source: str
    step: str
    rule: str  # one of few names, which are counted
    keeper: str  # id of the document that stands for it; "" where there is none
    similarity: float | None  # to the keeper
    detail: str


class Sample(TypedDict):
    """An example of what a rule does."""

    source: str
    before: str
    after: str  # "" for a document that was dropped


class RuleCounts(TypedDict):
    """What one rule did."""

    documents_changed: int
    documents_dropped: int
    characters_removed: int  # negative where a rule adds characters
    characters_dropped: int  # of the documents dropped
    records_rejected: int  # files, pages or records that became no document
    samples: list[Sample]


def document_id(kind: str, source: str) -> str:
    """Return the id that a document keeps in all steps: 16 hexadecimal digits."""
    return hashlib.sha256(f"{kind}\0{source}".encode()).hexdigest()[:16]


def origin(file: str) -> str:
    """Return the first folder below corpus/ or general/ of a file; "" for a file at the top."""
    _, *folders, _ = file.split("/")
    return folders[0] if folders else ""


def place_of(document: CuratedDocument) -> str:
    """Return kind and origin: `corpus/laws`."""
    return f"{document['kind']}/{document['origin']}".rstrip("/")


def curated(kind: str, file: str, document: SourceDocument) -> CuratedDocument:
    """Return the record of a document that a reader found.

    Args:
        kind: corpus or general.
        file: The file that was read, relative to the data root: `corpus/laws/a.pdf`.
        document: What the reader found in it.
    """
    record: CuratedDocument = {
        "id": document_id(kind, document.source),
        "kind": kind,
        "source": document.source,
        "title": document.title,
        "date": document.date,
        "url": document.url,
        "origin": origin(file),
        "digest": hashlib.sha256(document.text.encode()).hexdigest(),
        "text": document.text,
    }
    if document.page_starts:
        record["page_starts"] = list(document.page_starts)
    return record


def read_documents(folder: Path) -> Iterator[CuratedDocument]:
    """Yield the documents of a step's folder, one at a time.

    Raises:
        ValueError: The file is damaged; the message names it.
    """
    yield from _records(folder / DOCUMENTS)


def read_drops(folder: Path) -> Iterator[Drop]:
    """Yield what a step dropped or rejected, one at a time.

    Raises:
        ValueError: The file is damaged; the message names it.
    """
    yield from _records(folder / DROPS)


def read_accounts(folder: Path) -> list[dict[str, Any]]:
    """Return the accounts of all steps up to that of a folder, each as in account.json."""
    account = read_json(folder / ACCOUNT)
    return [*account.pop("earlier"), account]


class Account:
    """Counts what a step takes, changes, keeps and drops, by rule and by origin.

    Args:
        step: Name of the step, such as `clean`.
    """

    def __init__(self, step: str) -> None:
        self.step = step
        self.documents: Counter[str] = Counter()  # in, out, dropped
        self.characters: Counter[str] = Counter()  # in, out, removed, dropped
        self.num_rejected = 0
        self.extra: dict[str, Any] = {}  # further entries of account.json
        self._rules: dict[str, Counter[str]] = defaultdict(Counter)
        self._samples: dict[str, list[Sample]] = defaultdict(list)
        self._origins: dict[str, Counter[str]] = defaultdict(Counter)
        self._taken: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)

    def take(self, document: CuratedDocument) -> None:
        """Count a document that comes into the step."""
        self._count(document, "in")

    def keep(self, document: CuratedDocument) -> None:
        """Count a document that goes on to the next step."""
        self._count(document, "out")

    def change(self, document: CuratedDocument, rule: str, text: str) -> None:
        """Count what a rule makes of a document's text.

        Args:
            document: The document before the change.
            rule: Name of the rule.
            text: The text after the change.
        """
        before = document["text"]
        if text == before:
            return
        num_removed = len(before) - len(text)
        self.characters["removed"] += num_removed
        self._rules[rule].update(documents_changed=1, characters_removed=num_removed)
        self._taken[place_of(document), rule]["characters"] += num_removed
        self._sample(rule, document["source"], *_excerpts(before, text))

    def drop(self, document: CuratedDocument, rule: str) -> None:
        """Count a document that a rule drops, with the text that it has by then."""
        num_characters = len(document["text"])
        self._count(document, "dropped")
        self._rules[rule].update(documents_dropped=1, characters_dropped=num_characters)
        self._taken[place_of(document), rule].update(documents=1, characters=num_characters)
        self._sample(rule, document["source"], document["text"][:SAMPLE_CHARS], "")

    def reject(self, rejection: Rejection) -> None:
        """Count what became no document."""
        self.num_rejected += 1
        self._rules[rejection.reason]["records_rejected"] += 1
        self._sample(rejection.reason, rejection.source, rejection.detail[:SAMPLE_CHARS], "")

    def check(self) -> None:
        """Assert that nothing got lost."""
        documents, characters = self.documents, self.characters
        num_documents = documents["out"] + documents["dropped"]
        assert documents["in"] == num_documents, (
            f"{self.step}: a document was neither kept nor dropped"
        )
        num_characters = characters["out"] + characters["removed"] + characters["dropped"]
        assert characters["in"] == num_characters, f"{self.step}: a change of text names no rule"

    def rules(self) -> dict[str, RuleCounts]:
        """Return what each rule did, by name in alphabetical order."""
        return {
            rule: {
                "documents_changed": counts["documents_changed"],
                "documents_dropped": counts["documents_dropped"],
                "characters_removed": counts["characters_removed"],
                "characters_dropped": counts["characters_dropped"],
                "records_rejected": counts["records_rejected"],
                "samples": self._samples[rule],
            }
            for rule, counts in sorted(self._rules.items())
        }

    def taken(self) -> dict[str, dict[str, dict[str, int]]]:
        """Return what each rule takes of each origin: documents dropped, characters of both."""
        taken: dict[str, dict[str, dict[str, int]]] = defaultdict(dict)
        for (place, rule), counts in sorted(self._taken.items()):
            taken[place][rule] = {unit: counts[unit] for unit in ("documents", "characters")}
        return taken

    def warnings(self) -> list[str]:
        """Return a line for each rule that takes more than its share of an origin."""
        lines = []
        for (place, rule), taken in sorted(self._taken.items()):
            incoming = self._origins[place]
            for unit in ("documents", "characters"):
                share = taken[unit] / max(1, incoming[f"{unit}_in"])
                if share > WARNED_SHARE:
                    lines.append(f"{rule}: takes {100 * share:.0f} % of the {unit} of {place}")
        return lines

    def summary(self) -> dict[str, Any]:
        """Return the content of account.json."""
        return {
            "step": self.step,
            "documents": {name: self.documents[name] for name in ("in", "out", "dropped")},
            "characters": {
                name: self.characters[name] for name in ("in", "out", "removed", "dropped")
            },
            "records_rejected": self.num_rejected,
            "rules": self.rules(),
            "origins": {place: dict(counts) for place, counts in sorted(self._origins.items())},
            "taken": self.taken(),
            "warnings": self.warnings(),
            **self.extra,
        }

    def metrics(self) -> dict[str, int]:
        """Return the counts for metrics.json."""
        return {
            "documents_in": self.documents["in"],
            "documents": self.documents["out"],
            "characters_in": self.characters["in"],
            "characters": self.characters["out"],
            "rejected": self.num_rejected,
        }

    def _count(self, document: CuratedDocument, direction: str) -> None:
        num_characters = len(document["text"])
        self.documents[direction] += 1
        self.characters[direction] += num_characters
        counts = self._origins[place_of(document)]
        counts[f"documents_{direction}"] += 1
        counts[f"characters_{direction}"] += num_characters

    def _sample(self, rule: str, source: str, before: str, after: str) -> None:
        samples = self._samples[rule]
        if len(samples) < MAX_SAMPLES:
            samples.append({"source": source, "before": before, "after": after})


class StepOutput:
    """The folder that a step writes, as a context manager.

        with StepOutput("clean", out) as output:
            for document in output.documents(parent):
                document = output.change(document, "page numbers", without(document["text"]))
                if document["text"]:
                    output.keep(document)
                else:
                    output.drop(document, "nothing is left")
        write_metrics(out, output.account.metrics())

    Args:
        step: Name of the step.
        out: The folder; it is made where it is missing.
    """

    def __init__(self, step: str, out: Path) -> None:
        self.account = Account(step)
        self._out = out
        self._earlier: list[dict[str, Any]] = []
        self._documents: TextIO
        self._drops: TextIO

    def __enter__(self) -> StepOutput:
        self._out.mkdir(parents=True, exist_ok=True)
        self._documents = open(self._out / DOCUMENTS, "w", encoding="utf-8", newline="\n")
        self._drops = open(self._out / DROPS, "w", encoding="utf-8", newline="\n")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._documents.close()
        self._drops.close()
        if error is None:
            self.account.check()
            summary = {**self.account.summary(), "earlier": self._earlier}
            write_json(self._out / ACCOUNT, summary)

    def documents(self, parent: Path) -> Iterator[CuratedDocument]:
        """Yield the documents of the step before, each counted as taken."""
        self._earlier = read_accounts(parent)
        for document in read_documents(parent):
            self.account.take(document)
            yield document

    def change(self, document: CuratedDocument, rule: str, text: str) -> CuratedDocument:
        """Return the document with the text that a rule makes of it, and count the change.

        Offsets of pages hold for the text before, and go with it.
        """
        if text == document["text"]:
            return document
        self.account.change(document, rule, text)
        changed: CuratedDocument = {**document, "text": text}
        changed.pop("page_starts", None)
        return changed

    def keep(self, document: CuratedDocument) -> None:
        """Write a document for the next step."""
        self.account.keep(document)
        self._documents.write(json.dumps(document, ensure_ascii=False) + "\n")

    def drop(
        self,
        document: CuratedDocument,
        rule: str,
        *,
        keeper: str = "",
        similarity: float | None = None,
        detail: str = "",
    ) -> None:
        """Leave a document out.

        Args:
            document: The document.
            rule: Name of the rule; one of few, which are counted.
            keeper: Id of the document that stands for it.
            similarity: Similarity to the keeper, in [0, 1].
            detail: Free text, which is only shown.
        """
        self.account.drop(document, rule)
        drop: Drop = {
            "id": document["id"],
            "source": document["source"],
            "step": self.account.step,
            "rule": rule,
            "keeper": keeper,
            "similarity": similarity,
            "detail": detail,
        }
        self._write_drop(drop)

    def reject(self, rejection: Rejection) -> None:
        """Name what became no document."""
        self.account.reject(rejection)
        drop: Drop = {
            "id": "",
            "source": rejection.source,
            "step": self.account.step,
            "rule": rejection.reason,
            "keeper": "",
            "similarity": None,
            "detail": rejection.detail,
        }
        self._write_drop(drop)

    def _write_drop(self, drop: Drop) -> None:
        self._drops.write(json.dumps(drop, ensure_ascii=False) + "\n")


def _records(path: Path) -> Iterator[Any]:
    """Yield the records of a file, one at a time."""
    with open(path, encoding="utf-8", newline="\n") as handle:
        for line in handle:
            try:
                yield json.loads(line)
            except ValueError as error:
                raise damaged(path, error) from None


def _excerpts(before: str, after: str) -> tuple[str, str]:
    """Return both texts from shortly in front of their first difference."""
    low, high = 0, min(len(before), len(after))
    while low < high:  # the longest common prefix, by bisection
        middle = (low + high + 1) // 2
        if before[low:middle] == after[low:middle]:
            low = middle
        else:
            high = middle - 1
    start = max(0, low - CONTEXT_CHARS)
    end = start + SAMPLE_CHARS
    return before[start:end], after[start:end]
