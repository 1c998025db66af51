"""Lines that many documents of one origin begin or end with: what their site or editor adds.

They are counted over all documents before cleaning starts, as lossy counting does (Manku and
Motwani, 2002): memory does not grow with the documents, and no count is more than 1 % of them too
low. A heading, a numbered article or a row of a table is never such a line: laws begin and end with
the same ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from soaes.data.curation import characters, lines
from soaes.data.curation.document import CuratedDocument, place_of

MIN_DOCUMENTS = 20  # of an origin, below which no line counts as shared
SHARE = 0.3  # of the documents of an origin
ZONE = 3  # lines at the beginning and at the end of a document among which they are looked for
EDGE_CHARS = 2000  # of a document at each end, in which these lines lie
MIN_LETTERS = 8
WIDTH = 100  # documents after which rare lines are forgotten: counts are 1 / WIDTH too low at most


class SharedLines:
    """Counts the lines at the ends of documents, origin by origin."""

    def __init__(self) -> None:
        self._num_documents: dict[str, int] = defaultdict(int)
        # Origin -> key of a line -> how often it was counted, and may have been before.
        self._counts: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)

    def add(self, document: CuratedDocument) -> None:
        """Count the lines of a document as it was read."""
        origin = place_of(document)
        counts = self._counts[origin]
        num_widths = self._num_documents[origin] // WIDTH
        for key in _edge_keys(document["text"]):
            count, missed = counts.get(key, (0, num_widths))
            counts[key] = count + 1, missed
        self._num_documents[origin] += 1
        if self._num_documents[origin] % WIDTH == 0:
            self._counts[origin] = {
                key: (count, missed)
                for key, (count, missed) in counts.items()
                if count + missed > num_widths + 1
            }

    def keys(self) -> dict[str, frozenset[str]]:
        """Return, by origin, the keys of the lines that its documents share."""
        shared = {}
        for origin, counts in self._counts.items():
            num_documents = self._num_documents[origin]
            frequent = [key for key, (count, _) in counts.items() if count >= SHARE * num_documents]
            if frequent and num_documents >= MIN_DOCUMENTS:
                shared[origin] = frozenset(frequent)
        return shared


def remover(keys: frozenset[str]) -> Callable[[str], str]:
    """Return the function that removes lines with these keys from the ends of a text."""

    def without_shared(text: str) -> str:
        if not keys:
            return text
        contents = lines.contents_of(text)
        filled = [index for index, content in enumerate(contents) if content]
        edges = {*filled[:ZONE], *filled[-ZONE:]}
        gone = [index for index in edges if _key(contents[index]) in keys]
        return lines.without(lines.lines_of(text), gone) if gone else text

    return without_shared


def _edge_keys(text: str) -> set[str]:
    """Return the keys of the lines at both ends of a text."""
    if len(text) <= 2 * EDGE_CHARS:
        filled = _filled(text.split("\n"))
        edges = [*filled[:ZONE], *filled[-ZONE:]]
    else:  # without the lines that are cut
        edges = _filled(text[:EDGE_CHARS].split("\n")[:-1])[:ZONE]
        edges += _filled(text[-EDGE_CHARS:].split("\n")[1:])[-ZONE:]
    keys = {_key(characters.unified(characters.without_invisible(line))) for line in edges}
    return keys - {""}


def _filled(candidates: Iterable[str]) -> list[str]:
    return [line for line in candidates if line.strip()]


def _key(line: str) -> str:
    """Return what is equal for all occurrences of a line; "" for what is never removed."""
    content = line.strip()
    if lines.MARKER.match(content) or "\t" in content:
        return ""
    key = lines.head_key(content)
    return key if len(lines.LETTER.findall(key)) >= MIN_LETTERS else ""
