"""Read labels of relevance, and find the passages that they are about.

A labels file has a JSON object a line. It holds no text, so that it may be published where the
documents may not: a label finds its passage by the file and by the fingerprint. Labels come from
people's files and, by the stage `labels` (soaes.stages.labelling), from exports of the review page.

| field | meaning |
|---|---|
| source | the document's file, relative to the data folder |
| letters, hash | the passage's fingerprint (soaes.data.curation.passages); hash in 16 hex digits |
| label | 1: relevant, 0: not |
| probability | with which the passage was drawn, in (0, 1]; 1 where it is missing |
| family | documents that share text, such as the versions of a law; "" or missing: unknown |

Other fields (who labelled, a second label, offsets in the file) are for people and not read.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from soaes.data.curation.document import CuratedDocument
from soaes.data.curation.passages import Fingerprint, find

LABELS = "labels.jsonl"  # of the stage `labels`
HASH_BITS = 64
PLACE_MARKS = "#:"  # in a source, what separates a file from the place in it


@dataclass(frozen=True)
class Label:
    """A label of one passage."""

    source: str
    fingerprint: Fingerprint
    relevant: bool
    probability: float
    family: str  # "" where it is unknown

    def __post_init__(self) -> None:
        for name, text in (("source", self.source), ("family", self.family)):
            if not isinstance(text, str):
                raise TypeError(f"{name}={text!r}: must be text")
        if self.fingerprint.hash >= 1 << HASH_BITS or min(self.fingerprint) < 0:
            raise ValueError(f"letters and hash={self.fingerprint.hash:x}: of no passage")
        if not 0 < self.probability <= 1:
            raise ValueError(f"probability={self.probability}: must lie in (0, 1]")

    @property
    def file(self) -> str:
        """The file in which its passage stands."""
        return file_of(self.source)

    def record(self) -> dict[str, Any]:
        """Return its line of a labels file."""
        return {
            "source": self.source,
            "letters": self.fingerprint.letters,
            "hash": f"{self.fingerprint.hash:016x}",
            "label": int(self.relevant),
            "probability": self.probability,
            "family": self.family,
        }


class LabelledPassage(NamedTuple):
    """A label with the text that it is about."""

    text: str
    label: Label
    document: str  # id


def read_labels(path: Path) -> list[Label]:
    """Read a labels file.

    Raises:
        ValueError: There is no such file, or a line is no label; the message names the line.
    """
    if not path.is_file():
        raise ValueError(f"labels={path}: there is no such file; docs/relevance.md has its format")
    labels = []
    with open(path, "rb") as handle:
        for number, line in enumerate(handle, 1):
            if line.strip():
                labels.append(_label(line, f"{path}:{number}"))
    return labels


def labelled_passages(
    labels: Iterable[Label], documents: Iterable[CuratedDocument]
) -> Iterator[LabelledPassage]:
    """Yield the passages of the labels that are found in documents, each once.

    A document is looked through for the labels of its own file alone.
    """
    by_file: dict[str, dict[Fingerprint, Label]] = defaultdict(dict)
    for label in labels:
        by_file[label.file][label.fingerprint] = label
    for document in documents:
        missing = by_file.get(file_of(document["source"]))
        if not missing:
            continue
        text = document["text"]
        fingerprints = list(missing)
        for fingerprint, place in zip(fingerprints, find(text, fingerprints), strict=True):
            if place is not None:
                label = missing.pop(fingerprint)
                yield LabelledPassage(text[place.start : place.end], label, document["id"])


def file_of(source: str) -> str:
    """Return the file of a source: `corpus/a.jsonl` of `corpus/a.jsonl:12`."""
    ends = [source.rfind(mark) for mark in PLACE_MARKS]
    end = max((end for end in ends if end > source.rfind("/")), default=-1)
    return source[:end] if end > 0 and "." in source[:end] else source


def _label(line: bytes, place: str) -> Label:
    try:
        record: dict[str, Any] = json.loads(line.decode("utf-8-sig"))
        relevant = {0: False, 1: True}[record["label"]]
        return Label(
            source=record["source"],
            fingerprint=Fingerprint(int(record["letters"]), int(record["hash"], 16)),
            relevant=relevant,
            probability=record.get("probability", 1.0),
            family=record.get("family") or "",
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{place}: no label ({type(error).__name__}: {error}); a label has source, letters, "
            "hash and label 0 or 1, see docs/relevance.md"
        ) from None
