"""Exact and near-duplicates among documents, in memory that hardly grows with them.

1. `sketch`: every document gets a signature of its character n-grams (minimum hashes, rensa), of
   which the bands are kept, and what tells it from similar ones (soaes.data.curation.versions). All
   of it goes to files.
2. Documents are ranked: one is only ever dropped for one before it. General text comes first, which
   nothing that trains may repeat; then the most complete, the longest, of which the one with a
   title and a date; then the first read.
3. Equal texts are found by a digest. Each band is sorted; documents that share one are candidates.
4. In the order of the ranks, a document is compared with the candidates that are kept so far,
   exactly, by the Jaccard similarity of their n-grams. Differing titles, dates, names or numbers
   veto. One without a title or a date counts, once it stands for another, as what that one is.
5. Where a keeper was dropped itself, what it stood for names the document that is kept in the end.

So each dropped document has one that is kept, and a similarity to it that was measured: there are
no chains. The kept one takes over the title, date and URL that it lacks.

Memory grows by some 100 bytes a document. Texts are hashed piece by piece, and the n-grams of the
longest are compared part by part, so that no text needs more than a few times its own size. The
scratch files take 12 bytes a document and band beside the signatures' 8, and 8 bytes a character of
long texts that are compared.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from soaes.data.curation import ngrams, versions
from soaes.data.curation.document import DOCUMENTS, CuratedDocument, StepOutput
from soaes.data.curation.settings import DeduplicationSettings

Indices = npt.NDArray[np.int64]
Known = dict[str, npt.NDArray[np.integer[Any]]]  # `TOLD_BY` -> the value of every document

SEED = 42  # of the signatures
BATCH_DOCUMENTS = 500
BATCH_CHARS = 1 << 19
SHORT = 2000  # characters below which no number, name or clause may differ
FACTS_BELOW = 4000  # characters below which facts are looked up: twice SHORT, so that pairs meet
MAX_COMPARED = 200  # candidates that a document is compared with, those with most bands in common
CACHED_NGRAMS = 4 << 20  # n-grams of documents that are kept in memory: 32 MB
LONG = 2 << 20  # characters of a text whose n-grams are compared part by part, from files
NUM_PARTS = 32  # of the n-grams of such a text, by their hashes

RECORDS = "records"  # a `RECORD` a document

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

# What a kept document takes over from one that it stands for: the field of the document, and the
# field of its record that is 0 where it is unknown and equal where it agrees.
INHERITED = {"title": "title", "date": "metadata_date", "url": "has_url"}

# What tells two documents apart that know it; see `_known`.
TOLD_BY = ("title", "date", "metadata_date")

RECORD = np.dtype(
    [
        ("offset", np.uint64),  # of its line in documents.jsonl
        ("id", "S16"),
        ("digest", "S16"),  # of its text
        ("title", np.uint64),  # 0: unknown
        ("untitled", np.uint64),  # stands for an unknown title; 0: nothing does
        ("date", np.uint32),  # of its version; 0: unknown
        ("metadata_date", np.uint32),  # 0: unknown
        ("has_url", np.uint8),
        ("facts", np.uint64),  # of a text below FACTS_BELOW
        ("length", np.uint32),  # characters
        ("is_general", np.uint8),
        ("has_ngrams", np.uint8),
    ]
)


class Duplicates:
    """What is dropped, by the index of a document.

    Attributes:
        sketches: What is known of the documents.
        rule: Index into `RULES`; 0 for a document that is kept.
        keeper: Index of the document that stands for it.
        similarity: Jaccard similarity to it.
        given: Fields that the keeper takes over from it, one bit each of `INHERITED`.
        counts: Pairs, by `COUNTS`.
    """

    def __init__(self, sketches: Sketches) -> None:
        count = len(sketches.records)
        self.sketches = sketches
        self.rule = np.zeros(count, np.uint8)
        self.keeper = np.zeros(count, np.uint32)
        self.similarity = np.zeros(count, np.float32)
        self.given = np.zeros(count, np.uint8)
        self.counts: Counter[str] = Counter()

    def drop(self, document: int, keeper: int, rule: str, similarity: float) -> None:
        """Note that a document is dropped."""
        self.rule[document] = RULES.index(rule)
        self.keeper[document] = keeper
        self.similarity[document] = similarity

    def is_kept(self, documents: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.bool_]:
        """Tell which documents are kept so far."""
        return self.rule[documents] == 0

    def given_fields(self, document: int) -> list[str]:
        """Return the fields of a dropped document that its keeper takes over."""
        given = self.given[document]
        return [name for bit, name in enumerate(INHERITED) if given >> bit & 1]


class Sketches:
    """What `sketch` wrote of the documents of one folder, or of several as if they were one.

    Args:
        files: The files with the documents, in order.
        counts: How many documents each has.
        folder: Folder with the records and keys of all of them.
    """

    def __init__(self, files: Sequence[Path], counts: Sequence[int], folder: Path) -> None:
        self.records = _mapped(folder / RECORDS, RECORD)
        self._files = files
        self._starts = np.cumsum([0, *counts])
        self._folder = folder

    def document(self, index: int) -> CuratedDocument:
        """Read a document."""
        file = int(np.searchsorted(self._starts, index, side="right")) - 1
        with open(self._files[file], "rb") as handle:
            handle.seek(int(self.records["offset"][index]))
            document: CuratedDocument = json.loads(handle.readline())
        return document

    def keys(self, band: int) -> ngrams.Hashes:
        """Return the key of a band of every document."""
        return _mapped(self._folder / key_file(band), np.dtype(np.uint64))


class Similar(NamedTuple):
    """Two documents of one folder."""

    first: str  # id
    second: str
    similarity: float  # the Jaccard similarity of their n-grams


def find(folder: Path, settings: DeduplicationSettings, scratch: Path) -> Duplicates:
    """Find the documents of a step's folder that others stand for.

    Args:
        folder: The folder with documents.jsonl.
        settings: What counts as a near-duplicate.
        scratch: An empty folder for files that may be deleted afterwards.
    """
    sketches = _sketched(folder, settings, scratch)
    duplicates = Duplicates(sketches)
    decide(sketches, np.arange(len(sketches.records)), settings, scratch, duplicates)
    return duplicates


def similar(
    folder: Path, settings: DeduplicationSettings, max_chars: int, scratch: Path
) -> tuple[list[Similar], int]:
    """Find all similar documents of a step's folder, whatever else tells them apart.

    Args:
        folder: The folder with documents.jsonl.
        settings: From which similarity, and with which recall.
        max_chars: Longest documents that are looked at.
        scratch: An empty folder for files that may be deleted afterwards.

    Returns:
        The pairs, and how many candidates were not compared: those beyond `MAX_COMPARED` of one
        document.
    """
    sketches = _sketched(folder, settings, scratch)
    records = sketches.records
    is_candidate = (records["has_ngrams"] == 1) & (records["length"] <= max_chars)
    keys = (sketches.keys(band) for band in range(settings.bands[0]))
    candidates = _Candidates(np.flatnonzero(is_candidate), keys, scratch)
    texts = _Texts(sketches, settings.n, scratch)
    pairs = []
    num_not_compared = 0
    for position in np.flatnonzero(candidates.has_earlier):
        document = int(candidates.documents[position])
        others = candidates.earlier(int(position))
        num_not_compared += max(0, len(others) - MAX_COMPARED)
        for other in map(int, others[:MAX_COMPARED]):
            similarity = texts.jaccard(document, other)
            if similarity >= settings.jaccard:
                first, second = (records["id"][index].decode() for index in (other, document))
                pairs.append(Similar(first, second, similarity))
    return pairs, num_not_compared


def decide(
    sketches: Sketches,
    documents: Indices,
    settings: DeduplicationSettings,
    scratch: Path,
    duplicates: Duplicates,
) -> None:
    """Decide which of some documents are dropped; every candidate of one must be among them.

    Args:
        sketches: What is known of all documents.
        documents: Those that are decided on, in ascending order.
        settings: What counts as a near-duplicate.
        scratch: A folder for files that may be deleted afterwards.
        duplicates: Takes the decisions.
    """
    if not len(documents):
        return
    records = sketches.records
    ranked = _ranked(records, documents)
    _drop_equal_texts(records, ranked, duplicates)
    texts = _Texts(sketches, settings.n, scratch)
    is_candidate = duplicates.is_kept(ranked) & (records["has_ngrams"][ranked] == 1)
    keys = (sketches.keys(band) for band in range(settings.bands[0]))
    candidates = _Candidates(ranked[is_candidate], keys, scratch)
    known = _known(records, ranked, duplicates)
    _drop_near(records, known, candidates, texts, settings.jaccard, duplicates)
    if settings.versions == "newest":
        _drop_older(records, known, ranked, texts, settings.version_jaccard, duplicates)
    _name_kept(texts, duplicates)
    _note_inherited(records, duplicates)


def write_kept(parent: Path, output: StepOutput, duplicates: Duplicates, first: int = 0) -> None:
    """Write the documents that are kept, and the others as drops.

    A kept document takes over what it lacks from those that it stands for.

    Args:
        parent: The folder of the step before.
        output: Where to write.
        duplicates: The decisions.
        first: Index of the folder's first document among all.
    """
    givers = np.flatnonzero(duplicates.given)
    givers = givers[np.argsort(duplicates.keeper[givers], kind="stable")]
    keepers = duplicates.keeper[givers]
    inherited = Counter(dict.fromkeys(INHERITED, 0))
    for index, document in enumerate(output.documents(parent), first):
        if rule := RULES[duplicates.rule[index]]:
            given = duplicates.given_fields(index)
            inherited.update(given)
            output.drop(
                document,
                rule,
                keeper=duplicates.sketches.records["id"][duplicates.keeper[index]].decode(),
                similarity=round(float(duplicates.similarity[index]), 6),
                detail=f"its keeper takes over its {', '.join(given)}" if given else "",
            )
            continue
        start, end = np.searchsorted(keepers, [index, index + 1])
        for giver in map(int, givers[start:end]):
            other: dict[str, Any] = dict(duplicates.sketches.document(giver))
            fields = {name: other[name] for name in duplicates.given_fields(giver)}
            document = cast(CuratedDocument, {**document, **fields})
        output.keep(document)
    output.account.extra["inherited"] = dict(inherited)


def _sketched(folder: Path, settings: DeduplicationSettings, scratch: Path) -> Sketches:
    """Sketch the documents of a step's folder."""
    sketch(folder / DOCUMENTS, settings, scratch)
    count = (scratch / RECORDS).stat().st_size // RECORD.itemsize
    return Sketches([folder / DOCUMENTS], [count], scratch)


# ------------------------------------------------------------------------------------ signatures


def signatures(hashes: list[ngrams.Hashes], num_hashes: int) -> npt.NDArray[np.uint32]:
    """Return the signatures of sets of n-grams, one a row.

    rensa's full sketch. Its faster `rho` sketch looks at some of the n-grams of a long text, and
    misses nearly all of its near-duplicates.
    """
    from rensa import RMinHash

    matrix = RMinHash.digest_matrix_from_token_hash_sets(hashes, num_hashes, SEED)
    return np.array(matrix.to_rows(), np.uint32)


def key_file(band: int) -> str:
    """Return the name of the file with the keys of a band."""
    return f"keys-{band}"


def band_keys(signatures: npt.NDArray[np.uint32], bands: tuple[int, int]) -> ngrams.Hashes:
    """Return a hash of each band (columns) of each signature (rows)."""
    num_bands, rows = bands
    parts = signatures[:, : num_bands * rows].reshape(-1, num_bands, rows).astype(np.uint64)
    powers = np.cumprod(np.full(rows, ngrams.MULTIPLIER, np.uint64))
    return (parts * powers).sum(axis=2, dtype=np.uint64)


def sketch(path: Path, settings: DeduplicationSettings, folder: Path) -> None:
    """Write the records of all documents of a file, and a file of keys a band.

    Args:
        path: The file, documents.jsonl of a step.
        settings: How signatures are made.
        folder: Where to write.
    """
    files = [open(folder / key_file(band), "wb") for band in range(settings.bands[0])]
    try:
        with open(path, "rb") as lines, open(folder / RECORDS, "wb") as records:
            for batch in _batches(lines):
                texts = [document["text"] for _, document in batch]
                matrix, num_ngrams = _signatures(texts, settings)
                for file, column in zip(files, band_keys(matrix, settings.bands).T, strict=True):
                    file.write(np.ascontiguousarray(column).tobytes())
                rows = [
                    _record(offset, document, count > 0)
                    for (offset, document), count in zip(batch, num_ngrams, strict=True)
                ]
                records.write(np.array(rows, RECORD).tobytes())
                batch.clear()  # else it would stay in memory while the next one is read
                texts.clear()
    finally:
        for file in files:
            file.close()


def _signatures(
    texts: list[str], settings: DeduplicationSettings
) -> tuple[npt.NDArray[np.uint32], list[int]]:
    """Return the signatures of texts, one a row, and how many n-grams each has.

    The signature of a text is the minimum over those of its pieces.
    """
    largest = np.iinfo(np.uint32).max
    matrix = np.full((len(texts), settings.num_hashes), largest, np.uint32)
    num_ngrams = [0] * len(texts)
    pieces: list[ngrams.Hashes] = []
    rows: list[int] = []
    for row, text in enumerate(texts):
        for piece in ngrams.ngram_pieces(text, settings.n):
            pieces.append(piece)
            rows.append(row)
            num_ngrams[row] += len(piece)
            if sum(map(len, pieces)) >= BATCH_CHARS:
                _take_minimum(matrix, rows, pieces)
    _take_minimum(matrix, rows, pieces)
    return matrix, num_ngrams


def _take_minimum(
    matrix: npt.NDArray[np.uint32], rows: list[int], pieces: list[ngrams.Hashes]
) -> None:
    """Take pieces into the signatures of their texts, and empty both lists."""
    if pieces:
        for row, signature in zip(rows, signatures(pieces, matrix.shape[1]), strict=True):
            np.minimum(matrix[row], signature, out=matrix[row])
    rows.clear()
    pieces.clear()


def _batches(lines: BinaryIO) -> Iterator[list[tuple[int, CuratedDocument]]]:
    """Yield (offset, document) in lists that fit into memory."""
    batch: list[tuple[int, CuratedDocument]] = []
    offset = num_chars = 0
    for line in lines:
        document: CuratedDocument = json.loads(line)
        batch.append((offset, document))
        offset += len(line)
        line = b""  # a large one would stay in memory beside its document
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
        bool(document["url"]),
        versions.facts_digest(text) if len(text) < FACTS_BELOW else 0,
        len(text),
        document["kind"] == "general",
        has_ngrams,
    )


# ------------------------------------------------------------------------------------- decisions


def _ranked(records: npt.NDArray[np.void], documents: Indices) -> Indices:
    """Return documents in the order of their ranks: one is dropped only for one before it."""
    num_unknown = (records["title"][documents] == 0).astype(np.uint8)
    num_unknown += records["metadata_date"][documents] == 0
    length = records["length"][documents].astype(np.int64)
    is_corpus = records["is_general"][documents] == 0
    return documents[np.lexsort((num_unknown, -length, is_corpus))]


def _drop_equal_texts(
    records: npt.NDArray[np.void], ranked: Indices, duplicates: Duplicates
) -> None:
    """Drop every document whose text one before it has."""
    digests = records["digest"][ranked]
    order = np.argsort(digests, kind="stable")  # equal texts stay in the order of their ranks
    digests = digests[order]
    starts = _run_starts(digests)
    is_repeated = starts != np.arange(len(starts), dtype=np.uint32)
    for document, first in zip(order[is_repeated], order[starts[is_repeated]], strict=True):
        duplicates.drop(int(ranked[document]), int(ranked[first]), EXACT, 1.0)


def _known(records: npt.NDArray[np.void], ranked: Indices, duplicates: Duplicates) -> Known:
    """Return the title and dates of all documents, 0 where they are unknown.

    A kept document counts as what the first that it stands for is: else one copy of a law without a
    date would stand for the versions of two years, and one of them would be lost.
    """
    known = {name: records[name].copy() for name in TOLD_BY}
    for document in map(int, ranked[~duplicates.is_kept(ranked)]):
        _pass_on(known, document, int(duplicates.keeper[document]))
    return known


def _pass_on(known: Known, document: int, keeper: int) -> None:
    """Let a kept document count as what one that it stands for is, where it is unknown itself."""
    for values in known.values():
        values[keeper] = values[keeper] or values[document]


def _drop_near(
    records: npt.NDArray[np.void],
    known: Known,
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
        comparable = _comparable(records, known, document, others, duplicates.counts)
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
            _pass_on(known, document, other)
            break


def _drop_older(
    records: npt.NDArray[np.void],
    known: Known,
    ranked: Indices,
    texts: _Texts,
    jaccard: float,
    duplicates: Duplicates,
) -> None:
    """Drop every version of a text of which a newer one is kept."""
    dated = (known["title"] > 0) & (known["date"] > 0)
    documents = ranked[dated[ranked] & duplicates.is_kept(ranked)]
    # a digest of a title has 63 bits: beside it is room for the kind
    titles = 2 * known["title"][documents] + records["is_general"][documents]
    newest_first = np.lexsort((-known["date"][documents].astype(np.int64), titles))
    documents = documents[newest_first]
    starts = _run_starts(titles[newest_first])
    for index, start in enumerate(starts):
        document = int(documents[index])
        for newer in map(int, documents[start:index]):
            is_older = known["date"][document] < known["date"][newer]
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


def _note_inherited(records: npt.NDArray[np.void], duplicates: Duplicates) -> None:
    """Note what kept documents take over: title, date and URL that they lack, if others agree.

    Of those that have it, the most similar one gives it. An older version gives nothing.
    """
    is_equal = (duplicates.rule > 0) & (duplicates.rule != RULES.index(OLDER))
    dropped = np.flatnonzero(is_equal)
    keepers = duplicates.keeper[dropped]
    by_keeper = np.lexsort((-duplicates.similarity[dropped], keepers))
    dropped = dropped[by_keeper]
    starts = np.flatnonzero(np.diff(keepers[by_keeper], prepend=-1))
    for group in np.split(dropped, starts[1:]) if len(dropped) else []:
        keeper = duplicates.keeper[group[0]]
        for bit, name in enumerate(INHERITED.values()):
            givers = group[records[name][group] > 0]
            agree = len(np.unique(records[name][givers])) == 1
            if agree and not records[name][keeper]:
                duplicates.given[givers[0]] |= 1 << bit


def _comparable(
    records: npt.NDArray[np.void],
    known: Known,
    document: int,
    others: Indices,
    counts: Counter[str],
) -> Indices:
    """Return the documents that no title, date, name or number tells from this one."""
    own = records[document]
    rows = records[others]
    title = known["title"][document]
    titles = known["title"][others]
    neither_titled = (title == 0) & (titles == 0)
    other_title = (title > 0) & (titles > 0) & (titles != title)
    other_title |= neither_titled & (rows["untitled"] != own["untitled"])
    other_date = np.zeros(len(others), bool)
    for name in ("date", "metadata_date"):
        day = known[name][document]
        days = known[name][others]
        other_date |= (day > 0) & (days > 0) & (days != day)
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
        keys: The keys of all documents, band by band.
        scratch: Folder for the sorted bands.
    """

    def __init__(self, documents: Indices, keys: Iterable[ngrams.Hashes], scratch: Path) -> None:
        self.documents = documents
        self.has_earlier = np.zeros(len(documents), bool)
        self._bands = [self._sorted(band, own, scratch) for band, own in enumerate(keys)]

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

    def _sorted(
        self, band: int, keys_of_all: ngrams.Hashes, scratch: Path
    ) -> tuple[npt.NDArray[np.uint32], ...]:
        """Sort a band.

        Returns:
            Positions in the order of their keys, and for each position where its run of equal keys
            starts in this order, and where it stands itself.
        """
        keys = keys_of_all[self.documents]
        order = np.argsort(keys, kind="stable")
        starts = _run_starts(keys[order])
        start, place = np.empty_like(starts), np.empty_like(starts)
        start[order] = starts
        place[order] = np.arange(len(order))
        self.has_earlier |= start < place
        return (
            _stored(scratch / f"order-{band}", order.astype(np.uint32)),
            _stored(scratch / f"start-{band}", start),
            _stored(scratch / f"place-{band}", place),
        )


class _Texts:
    """Compares texts, which it reads from their files; the n-grams of the last ones stay in memory.

    Args:
        sketches: What is known of the documents.
        n: Characters of an n-gram.
        scratch: Folder for the n-grams of long texts.
    """

    def __init__(self, sketches: Sketches, n: int, scratch: Path) -> None:
        self._sketches = sketches
        self._lengths = sketches.records["length"]
        self._n = n
        self._scratch = scratch
        self._cache: OrderedDict[int, ngrams.Hashes] = OrderedDict()
        self._num_cached = 0

    def jaccard(self, first: int, second: int) -> float:
        """Return the exact Jaccard similarity of the n-grams of two documents."""
        if max(self._lengths[first], self._lengths[second]) <= LONG:
            return ngrams.jaccard(self._ngrams(first), self._ngrams(second))
        self._cache.clear()
        self._num_cached = 0
        folders = self._parts(first), self._parts(second)
        num_shared = num_all = 0
        for part in map(str, range(NUM_PARTS)):
            sets = [ngrams.distinct(np.fromfile(folder / part, np.uint64)) for folder in folders]
            shared, union = ngrams.overlap(*sets)
            num_shared += shared
            num_all += union
        return num_shared / max(1, num_all)

    def says_more(self, first: int, second: int) -> bool:
        """Tell whether the shorter has a clause that the longer one has not."""
        return versions.says_more(self._text(first), self._text(second))

    def _ngrams(self, document: int) -> ngrams.Hashes:
        if document in self._cache:
            self._cache.move_to_end(document)
            return self._cache[document]
        pieces = list(ngrams.ngram_pieces(self._text(document), self._n))
        hashes = ngrams.distinct(np.concatenate([np.zeros(0, np.uint64), *pieces]))
        self._cache[document] = hashes
        self._num_cached += len(hashes)
        while self._num_cached > CACHED_NGRAMS and len(self._cache) > 1:
            _, oldest = self._cache.popitem(last=False)
            self._num_cached -= len(oldest)
        return hashes

    def _parts(self, document: int) -> Path:
        """Return the folder that holds the n-grams of a document, a file a part; write it once."""
        folder = self._scratch / f"ngrams-{document}"
        if folder.is_dir():
            return folder
        folder.mkdir()
        files = [open(folder / str(part), "wb") for part in range(NUM_PARTS)]
        try:
            for hashes in ngrams.ngram_pieces(self._text(document), self._n):
                part_of = hashes % np.uint64(NUM_PARTS)
                for part, file in enumerate(files):
                    file.write(hashes[part_of == part].tobytes())
        finally:
            for file in files:
                file.close()
        return folder

    def _text(self, document: int) -> str:
        return self._sketches.document(document)["text"]


def _run_starts(ordered: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    """Return for each element of a sorted array where the run of its equals starts."""
    starts = np.arange(len(ordered), dtype=np.uint32)
    starts[1:][ordered[1:] == ordered[:-1]] = 0
    return np.maximum.accumulate(starts)


def _mapped(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Map a file of records into memory; an empty file cannot be mapped."""
    if not path.stat().st_size:
        return np.zeros(0, dtype)
    return np.memmap(path, dtype, "r")


def _stored(path: Path, values: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Return numbers as a file that is mapped into memory.

    It is written first: where the disk is full, a write is an error, and writing to a mapped file
    kills the process (SIGBUS).
    """
    with open(path, "wb") as handle:
        handle.write(values.tobytes())
    return _mapped(path, values.dtype)
