"""Text in columns: fitted to a terminal, complete where it is piped. A Chinese character takes two.

Knows text alone.
"""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Sequence

GAP = "  "
MIN_COLUMN = 10  # characters that a column is cut to at most
CUT = "…"

# Styles by name, as numbers of SGR (ECMA-48)
STYLES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33}


def terminal_width() -> int | None:
    """Return the characters of a line; None where the output is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def styled(text: str, style: str) -> str:
    """Colour a text on a terminal that can, unless NO_COLOR is set; it stays as wide as it is.

    Args:
        text: What stands in one line.
        style: One of STYLES; empty: leave the text as it is.
    """
    is_plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    if not style or not text or is_plain or not sys.stdout.isatty():
        return text
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m"


def printable(text: str) -> str:
    """Escape what is no visible character: a line break as `\\n`, a terminal's commands."""
    shown = (
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
    return "".join(shown)


def counted(number: int, noun: str) -> str:
    """Return `1 job`, `2 jobs`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def display_width(text: str) -> int:
    """Count the columns that a text takes on a terminal."""
    return sum(_width(char) for char in text)


def _width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def clip(text: str, width: int | None) -> str:
    """Cut a text to some columns, the last of which then is `…`; None: leave it whole."""
    if width is None or display_width(text) <= width:
        return text
    used, kept = 1, []
    for char in text:
        used += _width(char)
        if used > width:
            break
        kept.append(char)
    return "".join(kept) + CUT


def wrap(text: str, width: int | None, indent: str = "", hanging: str = "") -> list[str]:
    """Break a sentence into lines, between words: a longer word is left whole.

    Args:
        text: Words.
        width: Columns of a line; None: it is one line.
        indent: What stands before the first line.
        hanging: What stands before `indent` in every further line.
    """
    if width is None:
        return [indent + text]
    lines: list[str] = []
    line = ""
    prefix = indent
    for word in text.replace("\n", " ").split(" "):  # of two spaces one is a word, and is kept
        longer = f"{line} {word}" if line else word
        if line and display_width(prefix + longer) > width:
            lines.append(prefix + line.rstrip())
            line = word
            prefix = hanging + indent
        else:
            line = longer
    return [*lines, prefix + line]


def columns(rows: Sequence[Sequence[str]], width: int | None, indent: str = "") -> list[str]:
    """Align cells below each other.

    Args:
        rows: Cells, as many in each row.
        width: Columns of a line, to which the widest cells are cut; None: nothing is cut.
        indent: What stands before each line.
    """
    if not rows:
        return []
    widths = [max(map(display_width, cells)) for cells in zip(*rows, strict=True)]
    if width is not None:
        room = width - len(indent) - len(GAP) * (len(widths) - 1)
        while sum(widths) > room and max(widths) > MIN_COLUMN:
            widths[widths.index(max(widths))] -= 1
    lines = []
    for row in rows:
        cells = [pad(clip(cell, size), size) for cell, size in zip(row, widths, strict=True)]
        lines.append(clip((indent + GAP.join(cells)).rstrip(), width))
    return lines


def pad(text: str, width: int, align: str = "left") -> str:
    """Fill a text up with spaces to some columns, at its end or (`align="right"`) in front."""
    spaces = " " * (width - display_width(text))
    return spaces + text if align == "right" else text + spaces
