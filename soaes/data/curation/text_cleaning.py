"""Clean a text string, in time linear in its length.

Layout that carries meaning stays: HTML tags, full-width punctuation, indentation.
"""

from __future__ import annotations

import re
import unicodedata

from soaes.data.curation.characters import without_invisible

LINE_BREAKS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
CONTROL_TOKEN = re.compile(r"<\|[^<>|\s]{1,64}\|>")
CONTROL_TOKEN_AT_END = re.compile(CONTROL_TOKEN.pattern + r"\Z")
MAX_TOKEN_CHARS = 68


def clean(text: str) -> tuple[str, int]:
    """Normalise a text.

    The result is in NFC (not NFKC, which would change punctuation), without invisible characters
    and trailing spaces, and with at most one blank line in a row.

    Returns:
        The text, and the number of control tokens that were removed.
    """
    text, num_removed = remove_control_tokens(text)
    lines = [line.rstrip() for line in text.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip(), num_removed


def remove_control_tokens(text: str) -> tuple[str, int]:
    """Remove what a tokenizer would read as a control token; the rest keeps its layout.

    The result is in NFC, with one kind of line breaks and without invisible characters.

    Returns:
        The text, and the number of control tokens that were removed.
    """
    text = unicodedata.normalize("NFC", text)
    text = LINE_BREAKS.sub("\n", text)
    return without_control_tokens(without_invisible(text))


def without_control_tokens(text: str) -> tuple[str, int]:
    """Remove control tokens, also those that only the removal of others makes.

    In <|im_<|x|>end|> the outer one becomes a control token once the inner one is gone. One pass
    with a stack finds them all, since two control tokens cannot overlap.

    Returns:
        The text, and the number of control tokens that were removed.
    """
    if not CONTROL_TOKEN.search(text):
        return text, 0
    kept: list[str] = []
    num_removed = 0
    for character in text:
        kept.append(character)
        if character != ">":
            continue
        ending = "".join(kept[-MAX_TOKEN_CHARS:])
        if token := CONTROL_TOKEN_AT_END.search(ending):
            del kept[-len(token.group()) :]
            num_removed += 1
    return "".join(kept), num_removed
