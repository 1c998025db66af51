"""What tells two similar documents apart: titles, dates, names and numbers.

Two versions of one law, or two contracts of one form, may share nearly all their n-grams and still
both be wanted. They are told apart by a title and a date of their own, and short ones by every
number and name, and by every clause that the shorter one has alone.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress
from datetime import date
from functools import lru_cache
from hashlib import blake2b
from pathlib import PurePosixPath

from soaes.data.curation import ngrams
from soaes.data.curation.document import CuratedDocument

HEAD_CHARS = 1500  # of a text, in which it says when it was passed
TITLE_WITHIN = 300  # letters and digits, within which a text names its title
UNTITLED_HEAD = 200  # letters and digits; their numbers and names stand for a title that is unknown
UNTITLED_WITHIN = 1000  # characters, in which they are looked for

FIRST_ARTICLE = re.compile(r"第一[条章编]")
DATE = re.compile(r"(\d{4})\s*[年./-]\s*(\d{1,2})\s*[月./-]\s*(\d{1,2})\s*日?")
ENACTED = re.compile(r"通过|修[正订改]|公布|发布|批准|施行|实施|印发")
BRACKETS = re.compile(r"[(（][^()（）]*(?:\d{4}|修[正订])[^()（）]*[)）]")
SITE = re.compile(r"[_|｜]|\s[-–—]\s")  # parts a page's title from the site's
STATE = "中华人民共和国"

CLAUSE_END = re.compile(r"[，。、；：？！,;:?!…\n]|\.\s")
NUMERAL = "〇零一二三四五六七八九十百千万亿两"
FACT = re.compile(rf"《[^《》]{{1,60}}》|[A-Za-z]{{2,}}|\d+(?:[.,]\d+)*|[{NUMERAL}]{{2,}}")


def title_key(title: str) -> str:
    """Return what is equal for the titles of all versions of a text: `公司法`."""
    name = SITE.split(BRACKETS.sub("", title))[0]
    return ngrams.text_of(ngrams.folded(name)).removeprefix(STATE)


def known_title(document: CuratedDocument) -> str:
    """Return the key of a document's title; "" if only its file is called so."""
    key = title_key(document["title"])
    if not key:
        return ""
    file_name = PurePosixPath(document["source"].split("#")[0]).stem
    if key != title_key(file_name):
        return key
    head = ngrams.text_of(ngrams.folded(document["text"][: 4 * TITLE_WITHIN]))
    return key if key in head[:TITLE_WITHIN] else ""


def version_date(document: CuratedDocument) -> str:
    """Return the date of a version: the last at which its head or its file says it was passed.

    Returns:
        An ISO date; else that of the document; "" if there is none.
    """
    head = document["text"][:HEAD_CHARS]
    if found := FIRST_ARTICLE.search(head):
        head = head[: found.start()]
    lines = [line for line in head.split("\n") if ENACTED.search(line)]
    lines += BRACKETS.findall(f"{document['title']} {document['source']}")
    dates = [day for line in lines for day in _dates(line)]
    return max(dates, default=document["date"][:10])


def facts(text: str) -> frozenset[str]:
    """Return the numbers, dates, words in Latin letters and 《titles》 of a text."""
    return frozenset(fact.casefold() for fact in FACT.findall(text))


def says_more(first: str, second: str) -> bool:
    """Tell whether the shorter of two texts has a clause that the longer one has not.

    A name, a number or a word that differs makes such a clause. Punctuation, markup, width and case
    do not count, nor does what only the longer one has.
    """
    shorter, longer = sorted((first, second), key=len)
    return not _clauses(shorter) <= _clauses(longer)


def digest(value: str) -> int:
    """Return 63 bits of a text's digest; 0 for an empty one."""
    if not value:
        return 0
    return int.from_bytes(blake2b(value.encode(), digest_size=8).digest(), "little") >> 1


def facts_digest(text: str) -> int:
    """Return the digest of the facts of a text; 0 if it has none."""
    return digest("\0".join(sorted(facts(text))))


def untitled_digest(document: CuratedDocument) -> int:
    """Return what stands for the title of a document without one; 0 if nothing does.

    Where its head ends is counted in letters and digits, so that punctuation moves no fact out.
    """
    beginning = document["text"][:UNTITLED_WITHIN]
    _, offsets = ngrams.folded_with_offsets(beginning)
    end = int(offsets[UNTITLED_HEAD]) if len(offsets) > UNTITLED_HEAD else len(beginning)
    return facts_digest(beginning[:end])


@lru_cache
def days(iso_date: str) -> int:
    """Return a number for an ISO date that rises with it; 0 for none."""
    parts = [int(part) for part in re.findall(r"\d+", iso_date)[:3]]
    year, month, day = (*parts, 0, 0, 0)[:3]
    return (year * 13 + month) * 32 + day


def _clauses(text: str) -> Counter[str]:
    clauses = (ngrams.text_of(ngrams.folded(clause)) for clause in CLAUSE_END.split(text))
    return Counter(clause for clause in clauses if clause)


def _dates(text: str) -> list[str]:
    """Return the days that a text names, as ISO dates; what is in no calendar is left out."""
    found = []
    for year, month, day in DATE.findall(text):
        with suppress(ValueError):
            found.append(date(int(year), int(month), int(day)).isoformat())
    return found
