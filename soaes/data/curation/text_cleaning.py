"""Clean a text string.

Layout that carries meaning stays: HTML tags, full-width punctuation, indentation.
"""

from __future__ import annotations

import re
import unicodedata

LINE_BREAKS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Control characters except tab and newline; lone surrogates (a JSON escape can make one, and no
# UTF-8 file can hold it); byte order marks and zero-width characters.
INVISIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufeff\u200b\ufffe\uffff]")
CONTROL_TOKEN = re.compile(r"<\|[^<>|\s]{1,64}\|>")


def clean(text: str) -> tuple[str, int]:
    """Normalise a text.

    The result is in NFC (not NFKC, which would change punctuation), without invisible characters
    and trailing spaces, and with at most one blank line in a row.

    Returns:
        The text, and the number of control tokens that were removed.
    """
    text, num_removed = remove_control_tokens(text)
    text = re.sub(r"[^\S\n]+(?=\n|\Z)", "", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip(), num_removed


def remove_control_tokens(text: str) -> tuple[str, int]:
    """Remove what a tokenizer would read as a control token; the rest keeps its layout.

    Returns:
        The text, and the number of control tokens that were removed.
    """
    text = unicodedata.normalize("NFC", text)
    text = LINE_BREAKS.sub("\n", text)
    text = INVISIBLE.sub("", text)
    num_removed = 0
    while True:  # <|im_<|x|>end|> becomes a control token only once the inner one is gone
        text, count = CONTROL_TOKEN.subn("", text)
        if count == 0:
            return text, num_removed
        num_removed += count
