"""Character n-grams as 64-bit numbers: the one kernel of everything that compares texts.

Near-duplicates, decontamination, relevance, duplicates among questions and grounding all compare
texts by the n-grams of their characters, which need no tokenizer and suit Chinese as well as
English. An n-gram is hashed by a polynomial over its code points,

    h(c_0 ... c_{n-1}) = mix(c_0 M^(n-1) + c_1 M^(n-2) + ... + c_{n-1})    modulo 2^64,

with M odd. M has an inverse modulo 2^64, so that all n-grams of a text come out of one running sum,
whatever n is. `mix` spreads the sum over all bits; its low bits serve as the index of a feature.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt

CodePoints = npt.NDArray[np.uint32]
Hashes = npt.NDArray[np.uint64]

MULTIPLIER = 0x9E3779B97F4A7C15  # odd; 2^64 over the golden ratio
MIXER = 0xD6E8FEB86659FD93  # odd, with bits spread evenly
WORD = 1 << 64
BLOCK = 1 << 14  # n-grams that are hashed at once: their sums and powers stay in the cache
PIECE = 1 << 17  # characters of a text that are hashed at once by `ngram_pieces`
PLANE = 1 << 16  # code points of the basic plane, which a table covers
# These count as letters, as do mathematical signs: 3+2 is not 32. Other punctuation is left out.
SIGNS = "%‰"


def code_points(text: str) -> CodePoints:
    """Return the code points of a text; lone surrogates count as characters."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def text_of(points: CodePoints) -> str:
    """Return the text of code points."""
    return points.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


def folded(text: str) -> CodePoints:
    """Return the letters, digits and signs of a text, without case and width.

    Two texts that differ in punctuation, white space, markup, case or full width alone are equal
    when folded.
    """
    folds = _folds(text)
    return folds[folds != 0]


def folded_with_offsets(text: str) -> tuple[CodePoints, npt.NDArray[np.int64]]:
    """Return `folded(text)`, and where in the text each of its characters stands."""
    folds = _folds(text)
    offsets = np.flatnonzero(folds)
    return folds[offsets], offsets


def ngram_hashes(points: CodePoints, n: int) -> Hashes:
    """Hash every n-gram of a text.

    Args:
        points: Code points, folded or not.
        n: Characters of an n-gram, at least 1.

    Returns:
        Hashes in the order of the text, len(points) - n + 1 of them; none for a shorter text.
    """
    count = len(points) - n + 1
    if count < 1:
        return np.zeros(0, np.uint64)
    hashes = np.empty(count, np.uint64)
    powers, inverses = _powers(_room(min(BLOCK, count) + n))
    for start in range(0, count, BLOCK):
        block = hashes[start : start + BLOCK]
        size = len(block)
        characters = points[start : start + size + n - 1]
        # sums[k] = c_0 + c_1 / M + ... + c_{k-1} / M^(k-1)
        sums = np.zeros(len(characters) + 1, np.uint64)
        np.multiply(characters, inverses[: len(characters)], out=sums[1:])
        np.cumsum(sums, out=sums)
        np.subtract(sums[n:], sums[:size], out=block)
        block *= powers[n - 1 : n - 1 + size]
        _mix(block)
    return hashes


def ngram_pieces(text: str, n: int) -> Iterator[Hashes]:
    """Hash every n-gram of a folded text, in pieces whose memory does not grow with the text.

    Args:
        text: A text, which is folded here.
        n: Characters of an n-gram, at least 1.
    """
    last = np.zeros(0, np.uint32)
    for start in range(0, len(text), PIECE):
        points = np.concatenate([last, folded(text[start : start + PIECE])])
        yield ngram_hashes(points, n)
        last = points[max(0, len(points) - (n - 1)) :]


def ngram_hash(points: CodePoints) -> int:
    """Hash a whole text as one n-gram."""
    return int(ngram_hashes(points, len(points))[0]) if len(points) else 0


def distinct(hashes: Hashes) -> Hashes:
    """Return the different hashes, sorted."""
    ordered = np.sort(hashes)
    if len(ordered) < 2:
        return ordered
    is_new = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=is_new[1:])
    return ordered[is_new]


def jaccard(first: Hashes, second: Hashes) -> float:
    """Return the Jaccard similarity of two sets, both made by `distinct`; of empty sets 0."""
    num_shared, num_all = overlap(first, second)
    return num_shared / max(1, num_all)


def overlap(first: Hashes, second: Hashes) -> tuple[int, int]:
    """Return the sizes of the intersection and of the union of two sets made by `distinct`."""
    union = np.concatenate([first, second])
    union.sort(kind="stable")  # merges two sorted runs in linear time
    num_shared = int(np.count_nonzero(union[1:] == union[:-1]))
    return num_shared, len(union) - num_shared


def _folds(text: str) -> CodePoints:
    """Return what each character of a text is folded to; 0 for what is left out."""
    points = code_points(text)
    table = _fold_table()
    if not len(points) or points.max() < PLANE:
        return table[points]
    in_plane = points < PLANE
    # Beyond the basic plane are rare ideographs, which count, and emoji, which do no harm.
    return np.where(in_plane, table[np.where(in_plane, points, 0)], points)


def _mix(hashes: Hashes) -> None:
    """Spread hashes over all bits, in place."""
    shift = np.uint64(32)
    for _ in range(2):
        hashes ^= hashes >> shift
        hashes *= np.uint64(MIXER)
    hashes ^= hashes >> shift


def _room(length: int) -> int:
    """Return the size of the tables: a power of 2, so that few are made."""
    return 1 << (length - 1).bit_length()


@cache
def _powers(count: int) -> tuple[Hashes, Hashes]:
    """Return the powers of M and of its inverse, from 0 to count - 1."""
    powers = np.full(count, MULTIPLIER, np.uint64)
    inverses = np.full(count, pow(MULTIPLIER, -1, WORD), np.uint64)
    powers[0] = inverses[0] = 1
    return np.cumprod(powers), np.cumprod(inverses)


@cache
def _fold_table() -> CodePoints:
    """Return what each code point of the basic plane is folded to; 0 for what is left out."""
    table = np.zeros(PLANE, np.uint32)
    for point in range(PLANE):
        character = chr(point)
        fold = unicodedata.normalize("NFKC", character).casefold()
        if len(fold) != 1 or ord(fold) >= PLANE:
            fold = character
        if fold.isalnum() or unicodedata.category(fold) == "Sm" or fold in SIGNS:
            table[point] = ord(fold)
    return table
