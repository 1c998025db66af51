"""Our curation of documents beside what a user would pick instead.

`python -m benchmarks.curate corpus=DIR`, with

    corpus=DIR   a folder of documents; nothing of it is kept
    rounds=5     5 or more; one more goes before and is not counted
    out=FILE     benchmarks/results/curate.json

One thread. A result is the median over the rounds with its interval.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import curate_reading
from benchmarks.rounds import markdown, options, write
from soaes.pipeline.provenance import provenance

DEFAULTS = {"corpus": "", "rounds": "5", "out": "benchmarks/results/curate.json"}
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
    results = curate_reading.results(corpus, int(settings["rounds"]))
    write(Path(settings["out"]), results, **provenance())
    print(markdown(results))


if __name__ == "__main__":
    main(sys.argv[1:])
