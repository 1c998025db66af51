"""Read .html: the main content of a page with its paragraphs, and what its head says of it.

Nothing of a page runs and nothing that it links to is fetched. A page that is a list of links is no
document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from itertools import islice
from pathlib import Path

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLParserException, HTMLTree

from soaes.data.curation.document import Rejection, SourceDocument
from soaes.data.readers import encodings
from soaes.data.readers.base import (
    DATE,
    Unreadable,
    content,
    iso_date,
    memory_limit,
    unix_lines,
)

DECLARED = re.compile(rb"(?:charset|encoding)\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
DECLARED_WITHIN = 4096  # bytes
# Names of meta elements in order of precedence, in lower case; those of Chinese government sites
# (ArticleTitle, PubDate) beside Open Graph and Dublin Core.
TITLES = ("articletitle", "og:title", "dc.title", "title")
DATES = ("pubdate", "article:published_time", "publishdate", "dc.date", "date")
URLS = ("og:url", "url")
# What stands before a date in the body of a page whose head has none: 发布时间：<span>2021-03-04.
DATE_LABEL = re.compile(
    r"(?:发布|成文|发文|公布)(?:时间|日期)\s*[：:](?:\s|&nbsp;|<[^<>]{0,200}>){0,20}"
)
MAX_DATE_LABELS = 10  # of a page that are looked at
MAX_ELEMENTS = 100  # of the head that are looked at; to find the next takes longer each time
MAX_LINK = 1000  # characters of a link, with its address, that are looked at
MAX_LINK_SHARE = 0.6  # of the characters; beyond it a page is an index
MIN_LINKS = 10  # of an index, and of a page whose main content is looked for
NAVIGATION = ("nav", "[role=navigation]")
CELLS = re.compile(r"\t[\t ]+")  # between the cells of a row
BULLETS = " \t\u3000•◦▪·*-–—0123456789.、>»›[]()"
# Elements that hold none, and those that the next of their kind closes.
NOT_NESTED = "br|hr|img|input|meta|link|base|area|col|embed|source|track|wbr"
NOT_NESTED += "|p|li|dt|dd|td|th|tr|tbody|thead|tfoot|option|rp|rt"
NESTED_TAG = re.compile(rf"<(/?)(?!(?:{NOT_NESTED})\b)[a-z]", re.IGNORECASE)
LINK = re.compile(r"<a\b", re.IGNORECASE)
MARKUP = re.compile(r"<[^<>]*>")
# Of a page as it is parsed. Markup can be written that takes memory quadratic in its length.
MAX_MEMORY = 192 << 20
MAX_DEPTH = 2000  # elements in elements; parsing takes time quadratic in it


def read(path: Path, name: str) -> Iterator[SourceDocument | Rejection]:
    """Yield the document of a page."""
    raw = content(path)
    declared = DECLARED.search(raw, 0, DECLARED_WITHIN)
    charset = declared[1].decode("ascii", "ignore") if declared else ""
    page = encodings.decode(raw, charset).text
    tree = _parsed(page)
    num_links = _num_links(page)
    text = _text(tree, num_links)
    if num_links >= MIN_LINKS:
        _check_no_index(page, text)
    text, rejection = encodings.repaired(text, name)
    if rejection:
        yield rejection
    meta = _meta(tree)
    title = _first(meta, TITLES) or " ".join((tree.title or "").split())
    date = iso_date(_first(meta, DATES)) or _labelled_date(page)
    yield SourceDocument(text, name, title, date, _url(tree, meta))


def _check_depth(page: str) -> None:
    """Check how deeply elements are nested.

    Raises:
        Unreadable: More than MAX_DEPTH.
    """
    depth = 0
    for tag in NESTED_TAG.finditer(page):
        depth = max(0, depth - 1) if tag[1] else depth + 1
        if depth > MAX_DEPTH:
            raise Unreadable("nested too deeply", f"more than {MAX_DEPTH:,} elements in another")


def page_text(page: str) -> str:
    """Return the text of an HTML page that is stored elsewhere than in a file of its own.

    Raises:
        Unreadable: It is nested too deeply, or takes too much memory.
    """
    return _text(_parsed(page), _num_links(page))


def _parsed(page: str) -> HTMLTree:
    _check_depth(page)
    try:
        with memory_limit(MAX_MEMORY):
            return HTMLTree.parse(page)
    except (HTMLParserException, MemoryError):
        detail = f"it takes more than {MAX_MEMORY:,} bytes; mend its markup or split it"
        raise Unreadable("too complex", detail) from None


def _labelled_date(page: str) -> str:
    """Return the date that the body of a page says it was published on; "" where it says none."""
    for label in islice(DATE_LABEL.finditer(page), MAX_DATE_LABELS):
        if found := DATE.match(page, label.end()):
            return iso_date(found[0])
    return ""


def _text(tree: HTMLTree, num_links: int) -> str:
    """Return the main content of a page, with its paragraphs; else the whole of its text.

    Of a page with few links all is taken but what its markup calls navigation, in half the time.
    """
    if tree.body is None:
        return ""
    whole = [(False, NAVIGATION), (False, ())]
    main = [(True, ())] if num_links >= MIN_LINKS else []
    for main_content, left_out in [*main, *whole]:
        text = extract_plain_text(
            tree,
            main_content=main_content,
            alt_texts=False,
            comments=False,
            links=False,
            skip_elements=left_out,
        )
        if text.strip():
            return CELLS.sub("\t", unix_lines(text)).replace(" \t", "\t")
    return ""


def _num_links(page: str) -> int:
    return sum(1 for _ in LINK.finditer(page))


def _check_no_index(page: str, text: str) -> None:
    """Check that a page is no list of links.

    Raises:
        Unreadable: It is.
    """
    beginnings = (page[found.end() : found.end() + MAX_LINK] for found in LINK.finditer(page))
    inner = (link.partition(">")[2].partition("</a")[0] for link in beginnings)
    labels = {_label(unescape(MARKUP.sub("", label))) for label in inner}
    lines = [_label(line) for line in text.split("\n")]
    num_linked = sum(len(line) for line in lines if line in labels)
    if num_linked > MAX_LINK_SHARE * sum(map(len, lines)):
        raise Unreadable("index page", f"{_num_links(page):,} links and hardly any other text")


def _label(line: str) -> str:
    """Return a line without bullets, numbers and dates around its words."""
    return " ".join(line.split()).strip(BULLETS)


def _meta(tree: HTMLTree) -> dict[str, str]:
    """Return the meta elements of a page by name."""
    values: dict[str, str] = {}
    elements = [] if tree.head is None else tree.head.get_elements_by_tag_name("meta")
    for element in islice(elements, MAX_ELEMENTS):
        name = element.getattr("name") or element.getattr("property") or ""
        value = " ".join((element.getattr("content") or "").split())
        if name and value:
            values.setdefault(name.lower(), value)
    return values


def _first(meta: dict[str, str], names: tuple[str, ...]) -> str:
    return next((meta[name] for name in names if name in meta), "")


def _url(tree: HTMLTree, meta: dict[str, str]) -> str:
    links = [] if tree.head is None else tree.head.get_elements_by_tag_name("link")
    for link in islice(links, MAX_ELEMENTS):
        if link.getattr("rel") == "canonical" and link.getattr("href"):
            return str(link.getattr("href"))
    return _first(meta, URLS)
