"""Near-duplicates: speed beside datasketch, recall and precision on planted pairs, memory.

Pairs are planted in real texts: characters are replaced, left out and put in, beyond the head with
title and date, until a similarity is met. Others get another title or another date, and must stay.
"""

from __future__ import annotations

import importlib.util
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from benchmarks.rounds import row
from soaes.data.curation import near_duplicates, ngrams
from soaes.data.curation.document import DOCUMENTS, SourceDocument, curated
from soaes.data.curation.settings import DeduplicationSettings

SETTINGS = DeduplicationSettings()
LEVELS = (0.70, 0.75, 0.80, 0.85, 0.90, 0.95)
HEAD = 400  # characters that no edit touches
MIN_CHARS = 2000
NUM_TIMED = 40  # texts, each with a near-duplicate, that all contenders sketch
COPIES = (1, 10)  # of all texts, for the memory
# A process of its own; its high-water mark does not begin with that of the process before it.
MEMORY = (
    "import re, sys; from pathlib import Path; "
    "from soaes.data.curation import near_duplicates as near; "
    "from soaes.data.curation.settings import DeduplicationSettings as Settings; "
    "near.find(Path(sys.argv[1]), Settings(), Path(sys.argv[2])); "
    "status = Path('/proc/self/status').read_text(); "
    "print(re.search(r'VmHWM:\\s*(\\d+)', status)[1])"
)


def results(corpus: Path, rounds: int) -> list[dict[str, Any]]:
    """Measure deduplication.

    Args:
        corpus: A folder with texts in Markdown and plain text, such as laws.
        rounds: How often speed is measured; one more goes before and is not counted.

    Returns:
        Recall, precision and memory; speed and its factor over datasketch where that is installed.
    """
    paths = sorted(path for path in corpus.rglob("*") if path.suffix in (".md", ".txt"))
    texts = [path.read_text(encoding="utf-8") for path in paths]
    long_texts = [text for text in texts if len(text) >= MIN_CHARS]
    return [*speed(long_texts[:NUM_TIMED], rounds), *quality(long_texts), *memory(texts)]


# ----------------------------------------------------------------------------------------- speed


Sketches = tuple[list[set[str]], list[Any]]  # shingles and signatures by text


class Timing(NamedTuple):
    """What one contender needs, in seconds of the processor."""

    sketch: float
    total: float  # from the texts to the set that is kept
    kept: int


def speed(texts: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """Time the sketches, and the way from texts to the kept set, in turns with datasketch."""
    variants = [planted(text, 0.9, seed) for seed, text in enumerate(texts)]
    all_texts = [*texts, *variants]
    megabytes = sum(len(text.encode()) for text in all_texts) / 1e6
    contenders: dict[str, Callable[[Sequence[str]], Timing]] = {"ours": _ours}
    if importlib.util.find_spec("datasketch"):
        contenders["datasketch, a shingle at a time"] = partial(_datasketch, in_batches=False)
        contenders["datasketch, all shingles at once"] = partial(_datasketch, in_batches=True)
    timings: dict[str, list[Timing]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, contender in contenders.items():
            timing = contender(all_texts)
            assert timing.kept == len(texts), f"{name} keeps {timing.kept}"
            if number:
                timings[name].append(timing)
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
    ours = timings.pop("ours")
    rates = [megabytes / timing.total for timing in ours]
    rows = [row("text to kept set", "MB/s", rates, 20.0)]
    for name, theirs in timings.items():
        pairs = list(zip(theirs, ours, strict=True))
        sketches = [their.sketch / our.sketch for their, our in pairs]
        totals = [their.total / our.total for their, our in pairs]
        rows.append(row(f"sketch alone, beside {name}", "x", sketches, 100.0))
        rows.append(row(f"text to kept set, beside {name}", "x", totals, 50.0))
    return rows


def _ours(texts: Sequence[str]) -> Timing:
    with TemporaryDirectory() as folder, TemporaryDirectory() as scratch:
        _write(Path(folder), [(text, "", "") for text in texts])
        start = time.process_time()
        duplicates = near_duplicates.find(Path(folder), SETTINGS, Path(scratch))
        total = time.process_time() - start
    start = time.process_time()
    hashes = [ngrams.ngram_hashes(ngrams.folded(text), SETTINGS.n) for text in texts]
    near_duplicates.signatures(hashes, SETTINGS.num_hashes)
    sketch = time.process_time() - start
    return Timing(sketch, total, int((duplicates.rule == 0).sum()))


def _datasketch(texts: Sequence[str], in_batches: bool) -> Timing:
    """Keep each text that is similar to none that is kept, by datasketch at our bands."""
    from datasketch import MinHashLSH

    start = time.process_time()
    sets, sketches = _sketches(texts, in_batches)
    sketch = time.process_time() - start
    index = MinHashLSH(num_perm=SETTINGS.num_hashes, params=SETTINGS.bands)
    kept = 0
    for number in sorted(range(len(texts)), key=lambda number: -len(texts[number])):
        candidates = map(int, index.query(sketches[number]))
        if not any(_set_jaccard(sets[number], sets[other]) >= 0.8 for other in candidates):
            index.insert(str(number), sketches[number])
            kept += 1
    return Timing(sketch, time.process_time() - start, kept)


def _sketches(texts: Sequence[str], in_batches: bool) -> Sketches:
    """Return the shingles of each text, and its signature."""
    from datasketch import MinHash

    sets, sketches = [], []
    for text in texts:
        letters = ngrams.text_of(ngrams.folded(text))
        starts = range(len(letters) - SETTINGS.n + 1)
        shingles = {letters[start : start + SETTINGS.n] for start in starts}
        sketch = MinHash(num_perm=SETTINGS.num_hashes)
        encoded = [shingle.encode() for shingle in shingles]
        if in_batches:
            sketch.update_batch(encoded)
        else:  # as its documentation does
            for shingle in encoded:
                sketch.update(shingle)
        sets.append(shingles)
        sketches.append(sketch)
    return sets, sketches


def _set_jaccard(first: set[str], second: set[str]) -> float:
    return len(first & second) / len(first | second)


# --------------------------------------------------------------------------------------- quality


def quality(texts: Sequence[str]) -> list[dict[str, Any]]:
    """Measure recall and precision on planted pairs, and merges across titles and dates.

    Args:
        texts: Texts that differ; each gets one variant at every level.
    """
    rows: list[dict[str, Any]] = []
    num_found = num_similar = num_drops = 0
    for level in LEVELS:
        plants = [planted(text, level, seed) for seed, text in enumerate(texts)]
        pairs = list(zip(texts, plants, strict=True))
        similarities = [similarity(*pair) for pair in pairs]
        drops = _drops([(text, "", "") for pair in pairs for text in pair])
        expected = {number for number, value in enumerate(similarities) if value >= 0.8}
        found = {pair for pair, other in drops if pair == other}
        num_found += len(found & expected)
        num_similar += len(expected)
        num_drops += len(drops)
        share = 100 * len(found & expected) / max(1, len(expected))
        name = f"{len(expected)} of {len(pairs)} pairs planted at J {level:.2f} reach .8: found"
        rows.append(row(name, "%", [share], 99.5 if expected else None))
    recall, precision = 100 * num_found / num_similar, 100 * num_found / num_drops
    rows.append(row("found of all pairs at J .8 or above", "%", [recall], 99.5))
    rows.append(row("drops that are such pairs", "%", [precision], 100.0))
    for name, other in (("title", ("乙", "")), ("date", ("甲", "2021-01-01"))):
        records = []
        for seed, text in enumerate(texts):
            records.append((text, f"甲{seed}", "2020-01-01"))
            title, date = f"{other[0]}{seed}", other[1] or "2020-01-01"
            records.append((planted(text, 0.95, seed), title, date))
        merged = sum(pair == keeper for pair, keeper in _drops(records))
        label = f"merged of {len(texts)} pairs with another {name}"
        rows.append(row(label, "pairs", [merged], 0.0, "lower"))
    return rows


def planted(text: str, level: float, seed: int) -> str:
    """Return a text that is about so similar to this one."""
    generator = random.Random(f"{seed}/{level}")
    # J = (1 - x) / (1 + x) for a share x of n-grams that an edit of one character in n changes
    changed = (1 - level) / (1 + level)
    share = 1 - (1 - changed) ** (1 / SETTINGS.n)
    characters = list(text)
    places = [place for place in range(HEAD, len(text)) if text[place].isalnum()]
    for place in generator.sample(places, min(len(places), round(share * len(places)))):
        other = chr(generator.randrange(0x4E00, 0x9FA5))
        characters[place] = generator.choice((other, "", characters[place] + other))
    return "".join(characters)


def similarity(first: str, second: str) -> float:
    """Return the exact similarity of two texts."""
    hashes = [ngrams.ngram_hashes(ngrams.folded(text), SETTINGS.n) for text in (first, second)]
    return ngrams.jaccard(*map(ngrams.distinct, hashes))


def _drops(records: Sequence[tuple[str, str, str]]) -> list[tuple[int, int]]:
    """Return (pair, pair of its keeper) for each document dropped; a pair is two in a row."""
    with TemporaryDirectory() as folder, TemporaryDirectory() as scratch:
        _write(Path(folder), records)
        duplicates = near_duplicates.find(Path(folder), SETTINGS, Path(scratch))
    dropped = np.flatnonzero(duplicates.rule)
    return [(int(index) // 2, int(duplicates.keeper[index]) // 2) for index in dropped]


def _write(folder: Path, records: Sequence[tuple[str, str, str]]) -> None:
    with open(folder / DOCUMENTS, "w", encoding="utf-8") as handle:
        for number, (text, title, date) in enumerate(records):
            source = f"corpus/{number}.txt"
            document = curated("corpus", source, SourceDocument(text, source, title, date))
            handle.write(json.dumps(document, ensure_ascii=False) + "\n")


# ---------------------------------------------------------------------------------------- memory


def memory(texts: Sequence[str]) -> list[dict[str, Any]]:
    """Measure the peak memory over all texts, and over ten times as many."""
    rows = []
    for copies in COPIES:
        records = [
            (f"第{copy}号\n{text}", f"第{copy}号{number}", "")
            for copy in range(copies)
            for number, text in enumerate(texts)
        ]
        with TemporaryDirectory() as folder, TemporaryDirectory() as scratch:
            _write(Path(folder), records)
            words = [sys.executable, "-c", MEMORY, folder, scratch]
            peak = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        limit = 300 + 64 * len(records) / 1e6
        name = f"peak memory, {len(records):,} documents"
        rows.append(row(name, "MB", [int(peak) / 1000], limit, "lower"))
    return rows
