"""Importance of a document, computed from what it is and who cites it: nothing is learned.

The mean of four parts, each in [0, 1]:

- legal force, by the kind of text that the title names: constitution, law, regulation, local
  regulation, rule, anything else
- recency: half for every `HALF_LIFE` years between the date of the version, or of the document,
  and the newest one; half where it is unknown; a text that is in force after `as_of` has none
- citations: how many other documents name it as 《title》, on a logarithmic scale
- topics: the share of an expert's topics of which a term occurs

Knows titles, dates and texts, no files.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np

from soaes.data.curation.ngrams import code_points, ngram_hash

HALF_LIFE = 20.0  # years
MANY_CITATIONS = 20  # from so many on, the part is 1
STATE = "中华人民共和国"

DAY = re.compile(r"\d{4}(?:-\d{2}(?:-\d{2})?)?")
CITED = re.compile(r"《([^《》\n]{2,60})》")
# Notes behind a title: (2017-04-20), （试行）, (2013年修订)
NOTES = re.compile(r"[(（][^()（）]*[)）]\s*$")
NO_LAW = "办做方看想说算疗"  # in front of 法, of what is no law: 办法, 做法 (of a dish), 方法
# The kind of a text, by its title, from the highest force down.
FORCES = (
    (re.compile(r"宪法(?:修正案)?$"), 1.0),
    (re.compile(rf"(?:(?<![{NO_LAW}])法|法典|修正案)$"), 0.9),
    (re.compile(r"(?:省|市|自治区|自治州|自治县|区|县).*(?:条例|规定|决定|办法|细则)$"), 0.5),
    (re.compile(r"(?:条例|实施细则)$"), 0.7),
    (re.compile(r"(?:规定|办法|细则|决定|规则|章程|通知|意见)$"), 0.4),
)
OTHER_FORCE = 0.2


@dataclass(frozen=True)
class Importance:
    """The parts of a document's importance, each in [0, 1] but `citations`."""

    force: float
    recency: float
    citations: int  # documents that name it
    topics: float

    @property
    def score(self) -> float:
        """Return the mean of the parts."""
        cited = math.log1p(self.citations) / math.log1p(MANY_CITATIONS)
        return (self.force + self.recency + min(1.0, cited) + self.topics) / 4


def plain_title(title: str) -> str:
    """Return a title as others cite it: without the state's name and notes behind it."""
    text = "".join(title.split()).strip("《》")
    while (shorter := NOTES.sub("", text)) != text:
        text = shorter
    return text.removeprefix(STATE)


def legal_force(title: str) -> float:
    """Return the legal force of a text by its title, in [0, 1]."""
    text = plain_title(title)
    return next((force for pattern, force in FORCES if pattern.search(text)), OTHER_FORCE)


def recency(day: str, as_of: str) -> float:
    """Return how recent a date is, in [0, 1]; 0.5 where it is unknown.

    Args:
        day: ISO date; a year or a month alone counts as its first day.
        as_of: ISO date on which the corpus is looked at; "" where no document has a date.
    """
    then, now = parsed_day(day), parsed_day(as_of)
    if then is None or now is None:
        return 0.5
    if then > now:
        return 0.0
    years = (now - then).days / 365.25
    return float(0.5 ** (years / HALF_LIFE))


def parsed_day(text: str) -> date | None:
    """Return an ISO date, or the first day of a year or a month; None for what is no date."""
    if not DAY.fullmatch(text[:10]):
        return None
    parts = [int(part) for part in text[:10].split("-")]
    year, month, day = [*parts, 1, 1][:3]
    try:
        return date(year, month, day)
    except ValueError:
        return None


def cited_titles(text: str) -> set[str]:
    """Return the titles that a text names in book-title marks."""
    return {plain_title(title) for title in CITED.findall(text)}


def topic_coverage(text: str, topics: Mapping[str, Iterable[str]]) -> float:
    """Return the share of topics of which a term occurs in a text; 0 without topics."""
    if not topics:
        return 0.0
    return sum(any(term in text for term in terms) for terms in topics.values()) / len(topics)


class Citations:
    """How many documents cite each title that a document of the corpus has.

    Args:
        titles: Titles of the documents; 12 bytes are kept of each different one.
    """

    def __init__(self, titles: Iterable[str]) -> None:
        keys = array("Q", (_key(title) for title in titles if title))
        self._keys = np.unique(np.array(keys, np.uint64))
        self._counts = np.zeros(len(self._keys), np.int32)

    def add(self, text: str, title: str) -> None:
        """Count the citations of a document; those of its own title do not count."""
        for cited in cited_titles(text) - {plain_title(title)}:
            place = self._place(cited)
            if place is not None:
                self._counts[place] += 1

    def of(self, title: str) -> int:
        """Return how many documents cite a title."""
        place = self._place(title)
        return 0 if place is None else int(self._counts[place])

    def _place(self, title: str) -> int | None:
        key = np.uint64(_key(title))
        place = int(np.searchsorted(self._keys, key))
        is_known = place < len(self._keys) and self._keys[place] == key
        return place if is_known else None


def _key(title: str) -> int:
    """Return what a title is known by: a hash of 64 bits."""
    return ngram_hash(code_points(plain_title(title)))
