"""What a pass over the documents of a step finds: lengths, relevance, topics, excerpts.

A pass holds one document at a time; what it keeps grows with the number of excerpts that are asked
for, not with the documents. Knows one folder of documents at a time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from soaes.data.curation import ngrams
from soaes.data.curation.document import CuratedDocument, place_of, read_documents

# Lower ends of the classes of lengths, in characters.
LENGTHS = (
    0,
    50,
    100,
    200,
    500,
    1000,
    2000,
    5000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
)
RELEVANCE_CLASSES = 20  # of equal width, from 0 to 1
EXCERPT_CHARS = 400  # of a document that was dropped
COMPARED_CHARS = 60_000  # of a document that is compared with another
PASSAGE_CHARS = 80  # on both sides of what was found in a document

Topics = Mapping[str, Sequence[str]]


class Excerpt(TypedDict):
    """What is shown of a document."""

    source: str
    title: str
    date: str
    length: int  # of the whole text, in characters
    text: str


class Passage(TypedDict):
    """A place in a document, cut in three."""

    before: str
    match: str
    after: str


@dataclass
class Counts:
    """What is counted over documents."""

    lengths: list[int] = field(default_factory=lambda: [0] * len(LENGTHS))  # documents
    characters: list[int] = field(default_factory=lambda: [0] * len(LENGTHS))  # by length
    relevance: list[int] = field(default_factory=lambda: [0] * RELEVANCE_CLASSES)
    topics: Counter[str] = field(default_factory=Counter)  # documents in which a term occurs
    tiers: dict[str, int] = field(default_factory=dict)  # place -> tier of its first document

    def add(self, document: CuratedDocument, topics: Topics) -> None:
        """Count a document."""
        text, scores = document["text"], document.get("scores", {})
        length_class = bisect_right(LENGTHS, len(text)) - 1
        self.lengths[length_class] += 1
        self.characters[length_class] += len(text)
        for topic, terms in topics.items():
            self.topics[topic] += any(term in text for term in terms)
        if "relevance" in scores:
            index = int(scores["relevance"] * RELEVANCE_CLASSES)
            self.relevance[min(index, RELEVANCE_CLASSES - 1)] += 1
        if "tier" in scores:
            self.tiers.setdefault(place_of(document), int(scores["tier"]))


def counts(folder: Path, topics: Topics) -> Counts:
    """Count the documents of a step.

    Args:
        folder: Its folder.
        topics: Topic -> its terms.
    """
    found = Counts()
    for document in read_documents(folder):
        found.add(document, topics)
    return found


def excerpts(folder: Path, num_chars: Mapping[str, int]) -> dict[str, Excerpt]:
    """Return the beginnings of some documents.

    Args:
        folder: The folder of a step.
        num_chars: Id of a document -> characters of its text.
    """
    found: dict[str, Excerpt] = {}
    if not num_chars:
        return found
    for document in read_documents(folder):
        if document["id"] in num_chars:
            found[document["id"]] = {
                "source": document["source"],
                "title": document["title"],
                "date": document["date"],
                "length": len(document["text"]),
                "text": document["text"][: num_chars[document["id"]]],
            }
    return found


def passages(folder: Path, stems: Mapping[str, str]) -> dict[str, Passage]:
    """Return where a question stands in each of some documents.

    Args:
        folder: The folder of a step.
        stems: Id of a document -> letters and digits of the question that it holds.
    """
    found: dict[str, Passage] = {}
    if not stems:
        return found
    for document in read_documents(folder):
        if document["id"] in stems:
            found[document["id"]] = _passage(document["text"], stems[document["id"]])
    return found


def _passage(text: str, stem: str) -> Passage:
    """Find letters and digits in a text, whatever stands between them there."""
    points, offsets = ngrams.folded_with_offsets(text)
    index = ngrams.text_of(points).find(stem)
    if index < 0 or not stem:
        return {"before": "", "match": "", "after": text[:PASSAGE_CHARS]}
    start, end = int(offsets[index]), int(offsets[index + len(stem) - 1]) + 1
    return {
        "before": text[max(0, start - PASSAGE_CHARS) : start],
        "match": text[start:end],
        "after": text[end : end + PASSAGE_CHARS],
    }
