"""How fast users' documents are read, beside the libraries alone and beside trafilatura.

`results` is a part of `python -m benchmarks.curate`. All contenders take turns in one process, and
seconds are those of the processor, so that a busy machine changes them little. The limit of a
format is what its library needs without our checks: to decode, to parse, to give a page's text.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pypdfium2
from resiliparse.extract.html2text import extract_plain_text

from benchmarks.rounds import row
from soaes.data.curation.document import SourceDocument
from soaes.data.readers.registry import Readers

MEGABYTE = 1e6
MIN_BYTES = 4_000_000  # that a contender reads in a round; files are read several times over
TEXT, HTML, PDF = (".txt", ".md"), (".html", ".htm"), (".pdf",)
TARGETS = {"text": 20.0, "html": 10.0, "pdf": 150.0}  # MB/s, MB/s, pages/s


def results(corpus: Path, rounds: int) -> list[dict[str, Any]]:
    """Measure the readers of text, HTML and PDF.

    Args:
        corpus: A folder of documents.
        rounds: How often; one more goes before and is not counted.

    Returns:
        A row a format that the folder has; the factor over trafilatura where that is installed.
    """
    rows = []
    for name, suffixes in (("text", TEXT), ("html", HTML), ("pdf", PDF)):
        files = [path for path in sorted(corpus.rglob("*")) if path.suffix.lower() in suffixes]
        if files:
            rows += _format(name, files, rounds)
    return rows


def _format(name: str, files: list[Path], rounds: int) -> list[dict[str, Any]]:
    amount, unit = _amount(name, files)
    repeats = max(1, round(MIN_BYTES / sum(path.stat().st_size for path in files)))
    contenders: dict[str, Callable[[Path], object]] = {"ours": _ours, "limit": LIMITS[name]}
    if name == "html" and importlib.util.find_spec("trafilatura"):
        contenders["trafilatura"] = _trafilatura
    seconds: dict[str, list[float]] = {contender: [] for contender in contenders}
    for number in range(rounds + 1):
        for contender, read in contenders.items():
            start = time.process_time()
            # what is many times slower reads the files once, and in the counted rounds alone
            times = 1 if contender == "trafilatura" else repeats
            if number or contender != "trafilatura":
                for path in files * times:
                    read(path)
            if number:
                seconds[contender].append((time.process_time() - start) / times)
    speeds = {who: [amount / taken for taken in values] for who, values in seconds.items()}
    limit = sorted(speeds["limit"])[rounds // 2]
    label = f"{name}, {len(files):,} files"
    rows = [row(label, unit, speeds["ours"], target=TARGETS[name], limit=limit)]
    if "trafilatura" in speeds:
        pairs = zip(speeds["ours"], speeds["trafilatura"], strict=True)
        factors = [ours / theirs for ours, theirs in pairs]
        rows.append(row(f"{name} over trafilatura", "x", factors))
    return rows


def _amount(name: str, files: list[Path]) -> tuple[float, str]:
    """Return how much the files hold, and the unit of its speed."""
    if name == "pdf":
        return float(sum(_num_pages(path) for path in files)), "pages/s"
    return sum(path.stat().st_size for path in files) / MEGABYTE, "MB/s"


def _num_pages(path: Path) -> int:
    with pypdfium2.PdfDocument(path) as document:
        return len(document)


READERS = Readers()


def _ours(path: Path) -> int:
    items = READERS.read(path, f"corpus/{path.name}")
    return sum(len(item.text) for item in items if isinstance(item, SourceDocument))


def _decoded(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace")


def _whole_page(path: Path) -> str:
    return extract_plain_text(_decoded(path))


def _pages(path: Path) -> list[str]:
    return list(_page_texts(path))


def _page_texts(path: Path) -> Iterator[str]:
    with pypdfium2.PdfDocument(path) as document:
        for page in document:
            yield page.get_textpage().get_text_range()


def _trafilatura(path: Path) -> object:
    import trafilatura

    return trafilatura.extract(_decoded(path))


LIMITS: dict[str, Callable[[Path], object]] = {
    "text": _decoded,
    "html": _whole_page,
    "pdf": _pages,
}
