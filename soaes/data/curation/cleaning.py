"""Clean documents by rules that are switched and counted one by one.

A rule is a pure function from text to text. It removes characters, or replaces them one for one;
composing a letter with its accent (NFC) and turning two wide blanks into a line break remove one.
No rule rephrases, reorders or adds anything. A form feed marks the start of a page while rules run
(`with_page_marks`), so that those about pages need no other argument.

Rules about characters stand in `characters`, those about lines and pages in `lines`, and the one
about lines that many documents share in `shared_lines`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise

from soaes.data.curation import characters, lines, shared_lines
from soaes.data.curation.document import CleaningRule
from soaes.data.curation.text_cleaning import without_control_tokens

PAGE = lines.PAGE

SHARED_LINES = "shared lines"

# In the order in which they run. Paragraphs are known by their wide blanks until `indentation`;
# control tokens come late, since other rules could put one together.
RULES = (
    CleaningRule("line breaks", lines.with_line_feeds),
    CleaningRule("invisible characters", characters.without_invisible),
    CleaningRule("comments", lines.without_comments),
    CleaningRule("running heads", lines.without_running_heads),
    CleaningRule("page numbers", lines.without_page_numbers),
    CleaningRule("tables of contents", lines.without_tables_of_contents),
    CleaningRule("broken lines", lines.joined_lines),
    CleaningRule("indentation", lines.without_indentation),
    CleaningRule("character table", characters.unified),
    CleaningRule("spaces between Han", lines.without_han_spaces),
    CleaningRule("navigation", lines.without_navigation),
    CleaningRule(SHARED_LINES, shared_lines.remover(frozenset())),  # `rules` knows which
    CleaningRule("repeated lines", lines.without_repeated_lines),
    CleaningRule("control tokens", lambda text: without_control_tokens(text)[0]),
    CleaningRule("white space", lines.without_trailing_space),
)
RULE_NAMES = tuple(rule.name for rule in RULES)
BOILERPLATE = "boilerplate: "  # begins the names of the rules that conf lists
BOILERPLATE_AFTER = "navigation"


def rules(
    names: Collection[str],
    boilerplate: Mapping[str, str],
    shared: frozenset[str] = frozenset(),
) -> list[CleaningRule]:
    """Return rules in the order in which they run.

    Args:
        names: Names out of `RULE_NAMES`, in any order.
        boilerplate: Regular expressions of lines that are removed, by name, each a rule.
        shared: Keys of the lines that the documents of an origin share (`shared_lines`).
    """
    chosen: list[CleaningRule] = []
    for rule in RULES:
        if rule.name == SHARED_LINES:
            rule = CleaningRule(SHARED_LINES, shared_lines.remover(shared))
        if rule.name in names:
            chosen.append(rule)
        if rule.name == BOILERPLATE_AFTER:
            chosen += [
                CleaningRule(BOILERPLATE + name, lines.line_remover(pattern))
                for name, pattern in boilerplate.items()
            ]
    return chosen


def cleaned(
    text: str, page_starts: Sequence[int], rules: Sequence[CleaningRule]
) -> Iterator[tuple[str, str]]:
    """Apply rules one after another.

    Args:
        text: A text.
        page_starts: Offsets at which its pages begin; empty without pages.
        rules: What to apply, in this order.

    Yields:
        The name of each rule that changes the text, and the text after it.
    """
    if not page_starts and PAGE in text:
        text, page_starts = _page_starts(text)
        yield "line breaks", text
    marked = with_page_marks(text, page_starts)
    for rule in rules:
        after = rule.function(marked)
        if after != marked:
            marked = after
            yield rule.name, marked.replace(PAGE, "")


def with_page_marks(text: str, page_starts: Sequence[int]) -> str:
    """Return a text with a form feed in front of every page; its own become line breaks."""
    text = text.replace(PAGE, "\n")
    bounds = [0, *(start for start in page_starts if start > 0), len(text)]
    return PAGE.join(text[start:end] for start, end in pairwise(bounds))


def _page_starts(text: str) -> tuple[str, list[int]]:
    """Turn the form feeds of a text into line breaks, and return where its pages begin."""
    starts = [index + 1 for index, character in enumerate(text) if character == PAGE]
    return text.replace(PAGE, "\n"), starts
