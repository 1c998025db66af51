"""Where a quote stands in its text.

It is found by letters and digits (soaes.data.curation.ngrams), so that punctuation, width and line
breaks may differ, and its place is told in characters.
"""

from __future__ import annotations

from soaes.data.curation import ngrams

MIN_QUOTE = 4  # letters and digits
OPENING = "《“‘\"'（([【「『〈"
CLOSING = "》”’\"'）)]】」』〉。！？；.!?;%％"


def find_quote(quote: str, text: str) -> tuple[int, int] | None:
    """Return where a quote stands in a text, in characters; None where it does not.

    Marks that open or close right beside it belong to it.
    """
    wanted = ngrams.text_of(ngrams.folded(quote))
    if len(wanted) < MIN_QUOTE:
        return None
    points, offsets = ngrams.folded_with_offsets(text)
    index = ngrams.text_of(points).find(wanted)
    if index < 0:
        return None
    start = int(offsets[index])
    end = int(offsets[index + len(wanted) - 1]) + 1
    while start > 0 and text[start - 1] in OPENING:
        start -= 1
    while end < len(text) and text[end] in CLOSING:
        end += 1
    return start, end
