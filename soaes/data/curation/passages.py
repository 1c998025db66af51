"""Cut a document into passages: what relevance is judged by, and what a label is about.

A label must find its passage again in a text that was cleaned by other rules, and must not hold the
text. So a passage is known by its letters and digits, folded (soaes.data.curation.ngrams): by how
many there are, and by their hash.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from soaes.data.curation.ngrams import folded_with_offsets, ngram_hash, ngram_hashes

MIN_CHARS = 150  # a passage is closed by the line break at or after these
MAX_CHARS = 400  # a longer line is cut at the end of a sentence

LINE = re.compile(r"[^\n]+")
SENTENCE = re.compile(r"[^。！？!?]*[。！？!?]+[”’」』）)]*|[^。！？!?]+\Z")


class Passage(NamedTuple):
    """A passage of a document, `text[start:end]`."""

    start: int
    end: int


class Fingerprint(NamedTuple):
    """What a passage is known by."""

    letters: int  # of the folded text
    hash: int


def passages(text: str) -> Iterator[Passage]:
    """Yield the passages of a text, in order; together they hold all of it but white space.

    A passage is consecutive lines of `MIN_CHARS` or more. A line of more than `MAX_CHARS` counts as
    its sentences do. What is left at the end and is short belongs to the last passage.
    """
    start, end = 0, 0
    finished: Passage | None = None
    for piece in _pieces(text):
        if start == end:
            start = piece.start
        end = piece.end
        if end - start >= MIN_CHARS:
            if finished:
                yield finished
            finished = Passage(start, end)
            start = end
    if finished and end > start:
        finished = Passage(finished.start, end)
    elif end > start:
        finished = Passage(start, end)
    if finished:
        yield finished


def fingerprint(text: str) -> Fingerprint:
    """Return what a passage is known by; white space, punctuation and case do not change it."""
    points, _ = folded_with_offsets(text)
    return Fingerprint(len(points), ngram_hash(points))


def find(text: str, fingerprints: list[Fingerprint]) -> list[Passage | None]:
    """Return where the passages stand in a text; None for one that is not there.

    The time is that of hashing the text once for each number of letters.
    """
    points, offsets = folded_with_offsets(text)
    places: list[Passage | None] = []
    for letters, value in fingerprints:
        if not 0 < letters <= len(points):
            places.append(None)
            continue
        found = np.flatnonzero(ngram_hashes(points, letters) == np.uint64(value))
        if not len(found):
            places.append(None)
            continue
        first = int(found[0])
        places.append(Passage(int(offsets[first]), int(offsets[first + letters - 1]) + 1))
    return places


def _pieces(text: str) -> Iterator[Passage]:
    """Yield the lines of a text, or the sentences of a long line, without outer white space."""
    for line in LINE.finditer(text):
        if line.end() - line.start() <= MAX_CHARS:
            spans = [line.span()]
        else:
            spans = [found.span() for found in SENTENCE.finditer(text, *line.span())]
        for start, end in spans:
            piece = text[start:end]
            start += len(piece) - len(piece.lstrip())
            end -= len(piece) - len(piece.rstrip())
            if start < end:
                yield Passage(start, end)
