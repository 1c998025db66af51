"""Clean one text. Knows a string: not files, not records.

Layout that carries meaning stays: HTML tags, full-width punctuation, indentation.
"""

import re
import unicodedata

BREAKS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Controls but tab and newline; lone surrogates (a JSON escape can make one, and no file can hold it); BOM, zero width.
INVISIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufeff\u200b\ufffe\uffff]")
MARKER = re.compile(r"<\|[^<>|\s]{1,64}\|>")


def clean(text: str) -> tuple[str, int]:
    """NFC (not NFKC, which would change punctuation), no control characters, no trailing spaces, single blank lines.

    Returns the text and the number of control-token markers taken out.
    """
    text, markers = defuse(text)
    text = re.sub(r"[^\S\n]+(?=\n|\Z)", "", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip(), markers


def defuse(text: str) -> tuple[str, int]:
    """Take out what would become a control token, and how often. The rest keeps its layout."""
    text = INVISIBLE.sub("", BREAKS.sub("\n", unicodedata.normalize("NFC", text)))
    removed, found = 0, 1
    while found:  # <|im_<|x|>end|> becomes a marker only once the inner one is gone
        text, found = MARKER.subn("", text)
        removed += found
    return text, removed
