"""Exact and near-duplicates among documents, in memory that hardly grows with them.

1. `_sketch`: every document gets a signature of its character n-grams (minimum hashes, rensa), of
   which the bands are kept, and what tells it from similar ones (soaes.data.curation.versions). All
   of it goes to files.
2. Documents are ranked: one is only ever dropped for one before it. General text comes first, which
   nothing that trains may repeat; then the most complete, the longest, of which the one with a
   title and a date; then the first read.
3. Equal texts are found by a digest. Each band is sorted; documents that share one are candidates.
4. In the order of the ranks, a document is compared with the candidates that are kept so far,
   exactly, by the Jaccard similarity of their n-grams. Differing titles, dates, names or numbers
   veto.

5. Where a keeper was dropped itself, what it stood for names the document that is kept in the end.

So each dropped document has one that is kept, and a similarity to it that was measured: there are
no chains. The scratch files take 12 bytes a document and band beside the signatures' 8.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from soaes.data.curation import ngrams, versions
from soaes.data.curation.document import DOCUMENTS, CuratedDocument
from soaes.data.curation.settings import DeduplicationSettings

Indices = npt.NDArray[np.int64]

SEED = 42  # of the signatures
BATCH_DOCUMENTS = 500
BATCH_CHARS = 1 << 20
SHORT = 2000  # characters below which no number, name or clause may differ
FACTS_BELOW = 4000  # characters below which facts are looked up: twice SHORT, so that pairs meet
MAX_COMPARED = 200  # candidates that a document is compared with, those with most bands in common
CACHED_NGRAMS = 4 << 20  # n-grams of documents that are kept in memory: 32 MB

EXACT = "exact duplicate"
NEAR = "near-duplicate"
OLDER = "older version"
RULES = ("", EXACT, NEAR, OLDER)

# Of pairs that share a band: compared exactly, kept apart by a veto, or beyond MAX_COMPARED.
COUNTS = (
    "compared",
    "vetoed_title",
    "vetoed_date",
    "vetoed_facts",
    "vetoed_clause",
    "not_compared",
)

RECORD = np.dtype(
    [
        ("offset", np.uint64),  # of its line in documents.jsonl
        ("id", "S16"),
        ("digest", "S16"),  # of its text
        ("title", np.uint64),  # 0: unknown
        ("untitled", np.uint64),  # stands for an unknown title; 0: nothing does
        ("date", np.uint32),  # of its version; 0: unknown
        ("metadata_date", np.uint32),  # 0: unknown
        ("facts", np.uint64),  # of a text below FACTS_BELOW
        ("length", np.uint32),  # characters
        ("is_general", np.uint8),
        ("has_ngrams", np.uint8),
    ]
)


@dataclass
class Duplicates:
    """What is dropped, by the index of a document.

    Attributes:
        rule: Index into `RULES`; 0 for a document that is kept.
        keeper: Index of the document that stands for it.
        similarity: Jaccard similarity to it.
        ids: Ids of all documents.
        counts: Pairs, by `COUNTS`.
    """

    rule: npt.NDArray[np.uint8]
    keeper: npt.NDArray[np.uint32]
    similarity: npt.NDArray[np.float32]
    ids: npt.NDArray[np.bytes_]
    counts: Counter[str] = field(default_factory=Counter)

    def drop(self, document: int, keeper: int, rule: str, similarity: float) -> None:
        """Note that a document is dropped."""
        self.rule[document] = RULES.index(rule)
        self.keeper[document] = keeper
        self.similarity[document] = similarity

    def is_kept(self, documents: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.bool_]:
        """Tell which documents are kept so far."""
        return self.rule[documents] == 0


def find(folder: Path, settings: DeduplicationSettings, scratch: Path) -> Duplicates:
    """Find the documents of a step's folder that others stand for.

    Args:
        folder: The folder with documents.jsonl.
        settings: What counts as a near-duplicate.
        scratch: An empty folder for files that may be deleted afterwards.
    """
    _sketch(folder / DOCUMENTS, settings, scratch)
    records = _mapped(scratch / "records", RECORD)
    count = len(records)
    duplicates = Duplicates(
        np.zeros(count, np.uint8),
        np.zeros(count, np.uint32),
        np.zeros(count, np.float32),
        records["id"],
    )
    if not count:
        return duplicates
    num_known = (records["title"] > 0).astype(np.int64) + (records["metadata_date"] > 0)
    length = records["length"].astype(np.int64)
    ranked = np.lexsort((-num_known, -length, 1 - records["is_general"]))
    _drop_equal_texts(records, ranked, duplicates)
    with open(folder / DOCUMENTS, "rb") as handle:
        texts = _Texts(handle, records["offset"], settings.n)
        is_candidate = duplicates.is_kept(ranked) & (records["has_ngrams"][ranked] == 1)
        candidates = _Candidates(ranked[is_candidate], settings.bands[0], scratch)
        _drop_near(records, candidates, texts, settings.jaccard, duplicates)
        if settings.versions == "newest":
            _drop_older(records, ranked, texts, settings.version_jaccard, duplicates)
        _name_kept(texts, duplicates)
    return duplicates


# ------------------------------------------------------------------------------------ signatures


def signatures(hashes: list[ngrams.Hashes], num_hashes: int) -> npt.NDArray[np.uint32]:
    """Return the signatures of sets of n-grams, one a row.

    rensa's full sketch. Its faster `rho` sketch looks at some of the n-grams of a long text, and
    misses nearly all of its near-duplicates.
    """
    from rensa import RMinHash

    matrix = RMinHash.digest_matrix_from_token_hash_sets(hashes, num_hashes, SEED)
    return np.array(matrix.to_rows(), np.uint32)


def band_keys(signatures: npt.NDArray[np.uint32], bands: tuple[int, int]) -> ngrams.Hashes:
    """Return a hash of each band (columns) of each signature (rows)."""
    num_bands, rows = bands
    parts = signatures[:, : num_bands * rows].reshape(-1, num_bands, rows).astype(np.uint64)
    powers = np.cumprod(np.full(rows, ngrams.MULTIPLIER, np.uint64))
    return (parts * powers).sum(axis=2, dtype=np.uint64)


def _sketch(path: Path, settings: DeduplicationSettings, scratch: Path) -> None:
    """Write the records of all documents, and a file of keys a band."""
    files = [open(scratch / f"keys-{band}", "wb") for band in range(settings.bands[0])]
    try:
        with open(path, "rb") as lines, open(scratch / "records", "wb") as records:
            for batch in _batches(lines):
                documents = [document for _, document in batch]
                hashes = [
                    ngrams.ngram_hashes(ngrams.folded(document["text"]), settings.n)
                    for document in documents
                ]
                keys = band_keys(signatures(hashes, settings.num_hashes), settings.bands)
                for file, column in zip(files, keys.T, strict=True):
                    file.write(np.ascontiguousarray(column).tobytes())
                rows = [
                    _record(offset, document, len(ngrams_of) > 0)
                    for (offset, document), ngrams_of in zip(batch, hashes, strict=True)
                ]
                records.write(np.array(rows, RECORD).tobytes())
    finally:
        for file in files:
            file.close()


def _batches(lines: BinaryIO) -> Iterator[list[tuple[int, CuratedDocument]]]:
    """Yield (offset, document) in lists that fit into memory."""
    batch: list[tuple[int, CuratedDocument]] = []
    offset = num_chars = 0
    for line in lines:
        document: CuratedDocument = json.loads(line)
        batch.append((offset, document))
        offset += len(line)
        num_chars += len(document["text"])
        if num_chars >= BATCH_CHARS or len(batch) == BATCH_DOCUMENTS:
            yield batch
            batch = []
            num_chars = 0
    if batch:
        yield batch


def _record(offset: int, document: CuratedDocument, has_ngrams: bool) -> tuple[Any, ...]:
    text = document["text"]
    title = versions.digest(versions.known_title(document))
    return (
        offset,
        document["id"].encode(),
        blake2b(text.encode(), digest_size=16).digest(),
        title,
        0 if title else versions.untitled_digest(document),
        versions.days(versions.version_date(document)),
        versions.days(document["date"]),
        versions.facts_digest(text) if len(text) < FACTS_BELOW else 0,
        len(text),
        document["kind"] == "general",
        has_ngrams,
    )


# ------------------------------------------------------------------------------------- decisions


def _drop_equal_texts(
    records: npt.NDArray[np.void], ranked: Indices, duplicates: Duplicates
) -> None:
    """Drop every document whose text one before it has."""
    digests = records["digest"][ranked]
    order = np.argsort(digests, kind="stable")  # equal texts stay in the order of their ranks
    starts = _run_starts(digests[order])
    is_repeated = starts != np.arange(len(starts))
    for document, first in zip(order[is_repeated], order[starts[is_repeated]], strict=True):
        duplicates.drop(int(ranked[document]), int(ranked[first]), EXACT, 1.0)


def _drop_near(
    records: npt.NDArray[np.void],
    candidates: _Candidates,
    texts: _Texts,
    jaccard: float,
    duplicates: Duplicates,
) -> None:
    """Drop every document that is similar to one before it which is kept."""
    for position in np.flatnonzero(candidates.has_earlier):
        document = int(candidates.documents[position])
        others = candidates.earlier(int(position))
        others = others[duplicates.is_kept(others)]
        comparable = _comparable(records, document, others, duplicates.counts)
        if len(comparable) > MAX_COMPARED:
            duplicates.counts["not_compared"] += len(comparable) - MAX_COMPARED
        for other in map(int, comparable[:MAX_COMPARED]):
            duplicates.counts["compared"] += 1
            similarity = texts.jaccard(document, other)
            if similarity < jaccard:
                continue
            if _is_short(records, document, other) and texts.says_more(document, other):
                duplicates.counts["vetoed_clause"] += 1
                continue
            duplicates.drop(document, other, NEAR, similarity)
            break


def _drop_older(
    records: npt.NDArray[np.void],
    ranked: Indices,
    texts: _Texts,
    jaccard: float,
    duplicates: Duplicates,
) -> None:
    """Drop every version of a text of which a newer one is kept."""
    dated = (records["title"] > 0) & (records["date"] > 0)
    documents = ranked[dated[ranked] & duplicates.is_kept(ranked)]
    # a digest of a title has 63 bits: beside it is room for the kind
    titles = 2 * records["title"][documents] + records["is_general"][documents]
    newest_first = np.lexsort((-records["date"][documents].astype(np.int64), titles))
    documents = documents[newest_first]
    starts = _run_starts(titles[newest_first])
    for index, start in enumerate(starts):
        document = int(documents[index])
        for newer in map(int, documents[start:index]):
            is_older = records["date"][document] < records["date"][newer]
            if not is_older or duplicates.rule[newer]:
                continue
            similarity = texts.jaccard(document, newer)
            if similarity >= jaccard:
                duplicates.drop(document, newer, OLDER, similarity)
                break


def _name_kept(texts: _Texts, duplicates: Duplicates) -> None:
    """Name a kept document as the keeper where the one found was dropped later.

    An equal text may be found before its own near-duplicate, and that before a newer version.
    """
    dropped = np.flatnonzero(duplicates.rule)
    for document in map(int, dropped[~duplicates.is_kept(duplicates.keeper[dropped])]):
        keeper = int(duplicates.keeper[document])
        while duplicates.rule[keeper]:
            rule = RULES[duplicates.rule[keeper]]
            keeper = int(duplicates.keeper[keeper])
        duplicates.drop(document, keeper, rule, texts.jaccard(document, keeper))


def _comparable(
    records: npt.NDArray[np.void], document: int, others: Indices, counts: Counter[str]
) -> Indices:
    """Return the documents that no title, date, name or number tells from this one."""
    own = records[document]
    rows = records[others]
    both_titled = (own["title"] > 0) & (rows["title"] > 0)
    neither_titled = (own["title"] == 0) & (rows["title"] == 0)
    other_title = both_titled & (rows["title"] != own["title"])
    other_title |= neither_titled & (rows["untitled"] != own["untitled"])
    other_date = np.zeros(len(others), bool)
    for name in ("date", "metadata_date"):
        both_dated = (own[name] > 0) & (rows[name] > 0)
        other_date |= both_dated & (rows[name] != own[name])
    is_short = np.minimum(rows["length"], own["length"]) < SHORT
    other_facts = is_short & (rows["facts"] != own["facts"])
    counts["vetoed_title"] += int(other_title.sum())
    counts["vetoed_date"] += int((other_date & ~other_title).sum())
    counts["vetoed_facts"] += int((other_facts & ~other_title & ~other_date).sum())
    return others[~(other_title | other_date | other_facts)]


def _is_short(records: npt.NDArray[np.void], document: int, other: int) -> bool:
    return bool(min(records["length"][document], records["length"][other]) < SHORT)


class _Candidates:
    """The documents before each that share a band with it.

    Args:
        documents: Documents in the order of their ranks.
        num_bands: Bands of a signature.
        scratch: The folder with the keys of the bands.
    """

    def __init__(self, documents: Indices, num_bands: int, scratch: Path) -> None:
        self.documents = documents
        self.has_earlier = np.zeros(len(documents), bool)
        self._bands = [self._sorted(band, scratch) for band in range(num_bands)]

    def earlier(self, position: int) -> Indices:
        """Return the documents before one that share bands with it, those with the most first.

        Args:
            position: Where it stands in `documents`.
        """
        found = [
            order[start[position] : place[position]]
            for order, start, place in self._bands
            if start[position] < place[position]
        ]
        others, num_shared = np.unique(np.concatenate(found), return_counts=True)
        return self.documents[others[np.argsort(-num_shared, kind="stable")]]

    def _sorted(self, band: int, scratch: Path) -> tuple[npt.NDArray[np.uint32], ...]:
        """Sort a band.

        Returns:
            Positions in the order of their keys, and for each position where its run of equal keys
            starts in this order, and where it stands itself.
        """
        keys = np.fromfile(scratch / f"keys-{band}", np.uint64)[self.documents]
        order = np.argsort(keys, kind="stable")
        starts = _run_starts(keys[order])
        start = _scratch_array(scratch / f"start-{band}", len(order))
        place = _scratch_array(scratch / f"place-{band}", len(order))
        ordered = _scratch_array(scratch / f"order-{band}", len(order))
        ordered[:] = order
        start[order] = starts
        place[order] = np.arange(len(order))
        self.has_earlier |= start < place
        return ordered, start, place


class _Texts:
    """Compares texts, which it reads from the file; the n-grams of the last ones stay in memory."""

    def __init__(self, handle: BinaryIO, offsets: npt.NDArray[np.uint64], n: int) -> None:
        self._handle = handle
        self._offsets = offsets
        self._n = n
        self._cache: OrderedDict[int, ngrams.Hashes] = OrderedDict()
        self._num_cached = 0

    def jaccard(self, first: int, second: int) -> float:
        """Return the exact Jaccard similarity of the n-grams of two documents."""
        return ngrams.jaccard(self._ngrams(first), self._ngrams(second))

    def says_more(self, first: int, second: int) -> bool:
        """Tell whether the shorter has a clause that the longer one has not."""
        return versions.says_more(self._text(first), self._text(second))

    def _ngrams(self, document: int) -> ngrams.Hashes:
        if document in self._cache:
            self._cache.move_to_end(document)
            return self._cache[document]
        points = ngrams.folded(self._text(document))
        hashes = ngrams.distinct(ngrams.ngram_hashes(points, self._n))
        self._cache[document] = hashes
        self._num_cached += len(hashes)
        while self._num_cached > CACHED_NGRAMS and len(self._cache) > 1:
            _, oldest = self._cache.popitem(last=False)
            self._num_cached -= len(oldest)
        return hashes

    def _text(self, document: int) -> str:
        self._handle.seek(int(self._offsets[document]))
        text: str = json.loads(self._handle.readline())["text"]
        return text


def _run_starts(ordered: npt.NDArray[Any]) -> Indices:
    """Return for each element of a sorted array where the run of its equals starts."""
    is_new = np.ones(len(ordered), bool)
    is_new[1:] = ordered[1:] != ordered[:-1]
    return np.maximum.accumulate(np.where(is_new, np.arange(len(ordered)), 0))


def _mapped(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Map a file of records into memory; an empty file cannot be mapped."""
    if not path.stat().st_size:
        return np.zeros(0, dtype)
    return np.memmap(path, dtype, "r")


def _scratch_array(path: Path, count: int) -> npt.NDArray[np.uint32]:
    """Make a file that holds so many numbers and is mapped into memory."""
    if not count:
        return np.zeros(0, np.uint32)
    return np.memmap(path, np.uint32, "w+", shape=(count,))
