"""Our curation of documents beside what a user would pick instead.

`python -m benchmarks.curate corpus=DIR`, with

    corpus=DIR   a folder of documents, 300 of them of 2,000 characters; nothing of it is kept
    exam=DIR     exams as CSV files, to plant their questions; without it no part contamination
    parts=A,B    of reading, near (near-duplicates), contamination; all of them by default
    rounds=5     5 or more; one more goes before and is not counted
    out=FILE     benchmarks/results/curate.json

One thread. A result is the median over the rounds with its interval.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import curate_contamination, curate_near, curate_reading
from benchmarks.rounds import markdown, options, write
from soaes.pipeline.provenance import provenance

DEFAULTS = {
    "corpus": "",
    "exam": "",
    "parts": "reading,near,contamination",
    "rounds": "5",
    "out": "benchmarks/results/curate.json",
}
LEAST = {"rounds": 5}


def main(words: list[str]) -> None:
    """Run the benchmark, write its results and print them.

    Args:
        words: The command line, key=value each.

    Raises:
        ValueError: A word is wrong, or there is no such folder.
    """
    settings = options(words, DEFAULTS, LEAST)
    corpus = Path(settings["corpus"])
    if not settings["corpus"] or not corpus.is_dir():
        raise ValueError(f"corpus={corpus}: name a folder of documents")
    rounds = int(settings["rounds"])
    parts = settings["parts"].split(",")
    results = []
    if "reading" in parts:
        results += curate_reading.results(corpus, rounds)
    if "near" in parts:
        results += curate_near.results(corpus, rounds)
    if "contamination" in parts and settings["exam"]:
        results += curate_contamination.results(corpus, Path(settings["exam"]))
    write(Path(settings["out"]), results, **provenance())
    print(markdown(results))


if __name__ == "__main__":
    main(sys.argv[1:])
