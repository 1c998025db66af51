"""Where two texts differ, for the eye.

A *piece* is a text and whether it differs. `marked` is for what a cleaning rule made of a text;
`side_by_side` for two documents, of which it leaves out most of what is equal. Both take time that
is bounded, whatever the texts are. Knows no documents.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from os.path import commonprefix
from typing import NotRequired, TypedDict

from soaes.data.curation import ngrams

Piece = tuple[str, bool]

# Two texts are in step again where so many characters are equal, looked for within so many more of
# the text before; or where the next characters follow each other with small gaps.
ANCHORS = ((8, 1000), (4, 60))
MAX_REPLACING = 3  # characters that stand for others
NUM_LOOSE = 5
MAX_GAP = 3
LOOSE_WITHIN = 12
FOLLOWING = 24  # characters that are shown after the last difference

MAX_SENTENCES = 1500  # of each document
MAX_ROWS = 24  # that differ
MAX_CHANGED = 240  # characters of each side of a row that differs
CONTEXT = 60  # characters of what is equal beside a difference
SENTENCE = re.compile(r"[^\n。；]*[\n。；]+|[^\n。；]+")
MIN_EQUAL = 2  # characters between two differences, below which they are one


class Row(TypedDict):
    """A part of two documents beside each other: equal, differing, or left out."""

    same: NotRequired[str]
    left: NotRequired[list[Piece]]
    right: NotRequired[list[Piece]]
    skipped: NotRequired[int]  # characters that are equal and left out


class Comparison(TypedDict):
    """Two documents beside each other."""

    rows: list[Row]
    more: int  # rows that differ and are not shown
    cut: bool  # whether only the beginnings were compared


def marked(before: str, after: str) -> tuple[list[Piece], list[Piece]]:
    """Mark what a rule removed or replaced, in excerpts that begin at the same place.

    A rule removes characters or replaces few by few. Excerpts end where they were cut, so that what
    follows the last difference is no difference.

    Returns:
        The pieces of the text before and of the text after.
    """
    if _is_replaced(before, after):
        return _aligned(before, after)
    old: list[Piece] = []
    new: list[Piece] = []
    i = j = 0
    while i < len(before) and j < len(after):
        if before[i] == after[j]:
            _add(old, before[i], False)
            _add(new, after[j], False)
            i, j = i + 1, j + 1
            continue
        next_i, next_j = _in_step_again(before, i, after, j)
        if next_j == j:
            shift = _shift_to_line(before, i, next_i)
            i, j, next_i, next_j = i - shift, j - shift, next_i - shift, next_j - shift
            old, new = _shortened_by(old, shift), _shortened_by(new, shift)
        _add(old, before[i:next_i], True)
        _add(new, after[j:next_j], True)
        i, j = next_i, next_j
    _add(old, before[i:], len(before) > len(after))
    _add(new, after[j:], False)
    return _shortened(old), _shortened(new)


def _is_replaced(before: str, after: str) -> bool:
    """Tell whether most characters of two texts of one length stand at the same places."""
    num_equal = sum(old == new for old, new in zip(before, after, strict=False))
    return len(before) == len(after) and 2 * num_equal > len(before)


def _aligned(before: str, after: str) -> tuple[list[Piece], list[Piece]]:
    """Mark the places at which characters were replaced."""
    old: list[Piece] = []
    new: list[Piece] = []
    for first, second in zip(before, after, strict=True):
        _add(old, first, first != second)
        _add(new, second, first != second)
    return _shortened(old), _shortened(new)


def _in_step_again(before: str, i: int, after: str, j: int) -> tuple[int, int]:
    """Return where two texts that differ at `i` and `j` are equal again.

    Of all such places the nearest; a removal rather than a replacement.
    """
    found = []
    for start in range(j, min(j + MAX_REPLACING, len(after))):
        cost = MAX_REPLACING * (start - j)
        for rank, (length, within) in enumerate(ANCHORS):
            anchor = after[start : start + length]
            place = before.find(anchor, i, i + within + length)
            if len(anchor) == length and place >= 0:
                found.append((cost + place - i + rank, place, start))
        place = _loose(before, i, after, start)
        if place >= 0:
            found.append((cost + place - i + len(ANCHORS), place, start))
    if not found:
        is_replaced = i + 1 < len(before) and before[i + 1] == after[j + 1 : j + 2]
        return (i + 1, j + 1) if is_replaced else (len(before), j)
    _, place, start = min(found)
    return place, start


def _shift_to_line(text: str, start: int, end: int) -> int:
    """Return by how much a removal may begin earlier, at a line, with the same text left over."""
    for shift in range(min(start, end - start) + 1):
        if start == shift or text[start - shift - 1] == "\n":
            return shift
        if text[start - shift - 1] != text[end - shift - 1]:
            break
    return 0


def _shortened_by(pieces: list[Piece], num_chars: int) -> list[Piece]:
    """Return pieces without their last characters, which are in the last piece."""
    if not num_chars:
        return pieces
    text, differs = pieces[-1]
    return [*pieces[:-1], (text[: len(text) - num_chars], differs)]


def _loose(before: str, i: int, after: str, start: int) -> int:
    """Return from where on the next characters of `after` follow each other with small gaps."""
    following = after[start : start + NUM_LOOSE]
    for place in range(i, min(i + LOOSE_WITHIN, len(before))):
        if before[place] == following[0]:
            end = place
            for sign in following:
                end = before.find(sign, end, end + MAX_GAP + 1) + 1
                if not end:
                    break
            else:
                return place
    return -1


def _shortened(pieces: list[Piece]) -> list[Piece]:
    """Leave out most of what follows the last difference."""
    if len(pieces) < 2:
        return pieces
    text, differs = pieces[-1]
    if differs or len(text) <= FOLLOWING:
        return pieces
    return [*pieces[:-1], (f"{text[:FOLLOWING]}…", False)]


def side_by_side(left: str, right: str, max_chars: int) -> Comparison:
    """Compare two documents sentence by sentence, and what differs character by character.

    Sentences of the same letters and digits are equal, as they are for the rules.

    Args:
        left: One text.
        right: The other.
        max_chars: Characters of each that are compared.
    """
    is_cut = max(len(left), len(right)) > max_chars
    lefts, rights = (SENTENCE.findall(text[:max_chars]) for text in (left, right))
    is_cut |= max(len(lefts), len(rights)) > MAX_SENTENCES
    lefts, rights = lefts[:MAX_SENTENCES], rights[:MAX_SENTENCES]
    rows: list[Row] = []
    num_changed = 0
    left_keys, right_keys = (list(map(_letters, sentences)) for sentences in (lefts, rights))
    opcodes = SequenceMatcher(None, left_keys, right_keys).get_opcodes()
    for number, opcode in enumerate(opcodes):
        tag, i, i_end, j, j_end = opcode
        if tag == "equal":
            text = "".join(lefts[i:i_end])
            if num_changed < MAX_ROWS:
                rows += _equal(text, number == 0, number == len(opcodes) - 1)
            continue
        for left, right in _paired(lefts[i:i_end], rights[j:j_end]):
            num_changed += 1
            if num_changed <= MAX_ROWS:
                rows.append(_changed(left, right))
    return {"rows": rows, "more": max(0, num_changed - MAX_ROWS), "cut": is_cut}


def _letters(text: str) -> str:
    return ngrams.text_of(ngrams.folded(text))


def _paired(lefts: Sequence[str], rights: Sequence[str]) -> list[tuple[str, str]]:
    """Return sentences that stand for each other: one to one where their number is the same."""
    if len(lefts) == len(rights):
        return list(zip(lefts, rights, strict=True))
    return [("".join(lefts), "".join(rights))]


def _equal(text: str, is_first: bool, is_last: bool) -> list[Row]:
    """Return what of an equal text is next to a difference, and how much is left out."""
    if len(text) <= 3 * CONTEXT:
        return [{"same": text}]
    head: list[Row] = [] if is_first else [{"same": text[:CONTEXT]}]
    tail: list[Row] = [] if is_last else [{"same": text[-CONTEXT:]}]
    return [*head, {"skipped": len(text) - CONTEXT * (len(head) + len(tail))}, *tail]


def _changed(left: str, right: str) -> Row:
    """Return a row that differs; common text around the difference stays unmarked."""
    shared = len(commonprefix([left, right]))
    start = max(0, shared - CONTEXT)
    is_cut = min(len(left), len(right)) - start > MAX_CHANGED
    left, right = (text[start : start + MAX_CHANGED] for text in (left, right))
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    lefts: list[Piece] = []
    rights: list[Piece] = []
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        is_inner = 0 < i and i_end < len(left)
        differs = tag != "equal" or (i_end - i < MIN_EQUAL and is_inner)
        is_last = i_end == len(left) and j_end == len(right)
        if is_cut and is_last and (i == i_end or j == j_end):
            differs = False  # one side was cut earlier in its text
        _add(lefts, left[i:i_end], differs)
        _add(rights, right[j:j_end], differs)
    if is_cut:
        _add(lefts, "…", False)
        _add(rights, "…", False)
    return {"left": lefts, "right": rights}


def _add(pieces: list[Piece], text: str, differs: bool) -> None:
    """Append a text, to the last piece where it is of the same kind."""
    if not text:
        return
    if pieces and pieces[-1][1] == differs:
        pieces[-1] = (pieces[-1][0] + text, differs)
    else:
        pieces.append((text, differs))


def plain(pieces: Sequence[Piece]) -> str:
    """Return the text of pieces."""
    return "".join(text for text, _ in pieces)
