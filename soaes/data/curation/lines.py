"""Rules of cleaning about lines and pages.

Each is a pure function from text to text, in time linear in the text. A form feed marks the start
of a page; no rule removes one. A rule that is not sure leaves the line: what stays costs a few
tokens, what is taken by mistake is lost.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from itertools import pairwise

PAGE = "\f"
BREAK = re.compile("\r\n?|[\x0b\x85\u2028\u2029]")
LINE = re.compile(r"\f?[^\n\f]*\n|\f?[^\n\f]+|\f")

HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
NUMERAL = "〇零一二三四五六七八九十百千"
# What begins a paragraph, an item of a list, a row of a table or a heading.
MARKER = re.compile(
    rf"第[{NUMERAL}\d]+[编篇章节条款]|[{NUMERAL}]+[、．.]|[（(][{NUMERAL}\d]+[)）]"
    r"|\d+[、．)）]|\d+(?:\.\d+)*\.?\s|[①-⑳㈠-㈩]|#{1,6}\s|[-*+•·●○■□◆◇▲√>|]|```|!\[|附[件表录]|注[：:]"
)
ORDINAL = re.compile(rf"第[{NUMERAL}\d]+[编篇章节条款]$|[{NUMERAL}]+、$|附[件表录][{NUMERAL}\d]*$")
SENTENCE_END = re.compile(r"[。！？；：!?;:.…][”’」』\"')）]*$")
PUNCTUATION = re.compile(r"[，。、；：！？,;:!?]")
CLAUSE = re.compile("[，。；：！？]")
LETTER = re.compile(r"[^\W\d_]")


def with_line_feeds(text: str) -> str:
    """Return a text whose lines all end with a line feed."""
    return BREAK.sub("\n", text)


# ------------------------------------------------------------------------------------------ pages

MIN_PAGES = 5
HEAD_SHARE = 0.3  # of the pages that a running head stands on
ZONE = 3  # lines at the top and at the bottom of a page among which heads are looked for
NUMBER_ZONE = 2  # the same of page numbers
MIN_NUMBERS = 3  # of pages that count

MAX_NUMBER_CHARS = 30  # of a line with a page number
DIGITS = r"\d{1,4}"
PAGE_NUMBER = re.compile(
    rf"\W*(?:第?\s*({DIGITS})\s*页?\s*[/／，,]?\s*(?:共|of|/|／)\s*{DIGITS}\s*页?"
    rf"|第\s*({DIGITS})\s*页|page\s*({DIGITS})(?:\s*of\s*{DIGITS})?"
    rf"|[-—–－]\s*({DIGITS})\s*[-—–－])\W*",
    re.IGNORECASE,
)
BARE_NUMBER = re.compile(rf"\W*({DIGITS})\W*")


def without_running_heads(text: str) -> str:
    """Remove the heads and feet that pages repeat, but for the first time that each occurs.

    A running head is a line, digits aside, among the first or the last lines of at least 30 % of at
    least 5 pages, that seldom stands elsewhere.
    """
    if text.count(PAGE) + 1 < MIN_PAGES:
        return text
    lines = lines_of(text)
    pages = _pages(lines)
    zones = [_zone(lines, page, ZONE) for page in pages]
    by_page = [{head_key(lines[index]) for index in zone} for zone in zones]
    num_pages_of = Counter(key for keys in by_page for key in keys if key)
    least = HEAD_SHARE * len(pages)
    heads = {key for key, count in num_pages_of.items() if count >= least}
    if not heads:
        return text
    num_lines_of = Counter(head_key(line) for line in lines)
    heads = {key for key in heads if num_lines_of[key] < 2 * num_pages_of[key]}
    removed: list[int] = []
    seen: set[str] = set()
    for zone in zones:
        for index in zone:
            key = head_key(lines[index])
            if key in heads and key in seen:
                removed.append(index)
            seen.add(key)
    return without(lines, removed)


def without_page_numbers(text: str) -> str:
    """Remove page numbers.

    With pages: lines such as `3 / 195`, `第 3 页` or `- 3 -` at the top or bottom of a page, and
    bare numbers there that count with the pages. Without pages: the former, if at least 3 stand in
    the text and they ascend.
    """
    lines = lines_of(text)
    if PAGE not in text:
        numbers = [(index, _page_number(line)) for index, line in enumerate(lines)]
        found = [(index, number) for index, number in numbers if number is not None]
        values = [number for _, number in found]
        ascends = all(first < second for first, second in pairwise(values))
        if len(found) < MIN_NUMBERS or not ascends:
            return text
        return without(lines, [index for index, _ in found])
    removed: list[int] = []
    bare: list[tuple[int, int]] = []  # (line, number - page)
    pages = _pages(lines)
    for number, page in enumerate(pages):
        for index in _zone(lines, page, NUMBER_ZONE):
            match = BARE_NUMBER.fullmatch(_content(lines[index])[:MAX_NUMBER_CHARS])
            if _page_number(lines[index]) is not None:
                removed.append(index)
            elif match:
                bare.append((index, int(match[1]) - number))
    offset, count = Counter(offset for _, offset in bare).most_common(1)[0] if bare else (0, 0)
    if count >= max(MIN_NUMBERS, HEAD_SHARE * len(pages)):
        removed += [index for index, found in bare if found == offset]
    return without(lines, removed)


def _pages(lines: Sequence[str]) -> list[range]:
    """Return the lines of each page."""
    starts = [index for index, line in enumerate(lines) if line.startswith(PAGE)]
    bounds = [0, *(start for start in starts if start), len(lines)]
    return [range(start, end) for start, end in pairwise(bounds)]


def _zone(lines: Sequence[str], page: range, size: int) -> list[int]:
    """Return the first and the last lines of a page that hold anything."""
    filled = [index for index in page if _content(lines[index])]
    return sorted({*filled[:size], *filled[-size:]})


def head_key(line: str) -> str:
    """Return what is equal for all occurrences of a running head; "" for what can be none."""
    key = re.sub(r"\d+", "0", re.sub(r"\s+", "", line))
    return key if len(LETTER.findall(key)) >= 2 else ""


def _page_number(line: str) -> int | None:
    content = _content(line)
    match = PAGE_NUMBER.fullmatch(content) if len(content) <= MAX_NUMBER_CHARS else None
    return int(next(filter(None, match.groups()))) if match else None


# ---------------------------------------------------------------------------- tables of contents

LEADER = re.compile(r".*(?:\.{4,}|…{2,}|·{4,}|．{4,}|_{4,}|-{6,})\s*\d{1,4}\s*")
# Of a table of contents that stands on one line; a run of marks is looked at once.
INLINE_LEADER = re.compile(r"(?:(?<!\.)\.{6,}+|(?<!…)…{3,}+|(?<!·)·{6,}+)\s*(\d{1,4})(?!\d)")
CONTENTS = re.compile(
    r"(?:#{1,6}\s*)?\**\s*(?:目\s*[录次]|(?:table of )?contents)\s*\**", re.IGNORECASE
)
CONTENTS_HINT = re.compile(r"[.…·．_-]{2}|目\s*[录次]|[Cc]ontents|CONTENTS")
MIN_ENTRIES = 3
MAX_ENTRY_CHARS = 50
MAX_LEADER_CHARS = 400


def without_tables_of_contents(text: str) -> str:
    """Remove tables of contents, with their heading.

    These are at least 3 entries in a row with dot leaders and page numbers, be they lines or all on
    one, or, below a heading such as 目录, at least 3 lines in a row that all stand further down
    again.
    """
    if not CONTENTS_HINT.search(text):
        return text
    lines = lines_of(text)
    contents = contents_of(text)
    filled = [index for index, content in enumerate(contents) if content]
    removed: list[int] = []
    for run in _runs(filled, lambda index: _num_entries(contents[index]) > 0):
        if sum(_num_entries(contents[index]) for index in run) >= MIN_ENTRIES:
            removed += range(run[0], run[-1] + 1)
            position = bisect_left(filled, run[0])
            heading = filled[max(0, position - 1)]
            if CONTENTS.fullmatch(contents[heading]):
                removed.append(heading)
    headings = [
        position for position, index in enumerate(filled) if CONTENTS.fullmatch(contents[index])
    ]
    last = {_entry(contents[index]): index for index in filled} if headings else {}
    for position in headings:
        entries = _entries(filled, position + 1, contents, last)
        if len(entries) >= MIN_ENTRIES:
            removed += range(filled[position], entries[-1] + 1)
    return without(lines, removed)


def _num_entries(content: str) -> int:
    """Return how many entries with dot leaders a line consists of."""
    if not content[-1:].isdecimal():
        return 0
    leaders = list(INLINE_LEADER.finditer(content))
    if len(leaders) >= MIN_ENTRIES and leaders[-1].end() == len(content):
        pages = [int(leader[1]) for leader in leaders]
        return len(pages) if pages == sorted(pages) else 0
    return int(len(content) <= MAX_LEADER_CHARS and LEADER.fullmatch(content) is not None)


def _entries(
    filled: Sequence[int], start: int, contents: Sequence[str], last: dict[str, int]
) -> list[int]:
    """Return the filled lines from `start` up to the first that does not stand again below."""
    entries: list[int] = []
    names: set[str] = set()
    for position in range(start, len(filled)):
        index = filled[position]
        entry = _entry(contents[index])
        if entry in names or len(entry) > MAX_ENTRY_CHARS or last[entry] == index:
            break
        names.add(entry)
        entries.append(index)
    return entries


def _entry(content: str) -> str:
    """Return an entry without blanks, marks and its page number."""
    return re.sub(r"[-\s#*.…·]+|\d+$", "", content)


# --------------------------------------------------------------------------------- broken lines

MIN_WIDTH = 40  # of a full line: a Han character has 2, a letter 1
MAX_WIDTH = 200
MARGIN = 8  # by which full lines differ in width; the first of a paragraph has an indentation
MIN_FULL_LINES = 5
MIN_FULL_SHARE = {True: 0.05, False: 0.3}  # of the lines; with pages, tables may be the most
SHORT = 0.6  # of a full line
MAX_ENDING_CHARS = 8  # of the mark that ends a sentence, and the quotes after it
MAX_DIGITS = 0.3  # share of digits above which a line is a row of a table


def joined_lines(text: str) -> str:
    """Join the lines of a sentence that was broken at the right margin, also over page breaks.

    A line is broken if it ends no sentence and the next word would not have fitted. In a text
    without a right margin, so is the last line of a page if it is a sentence without its end. No
    line is joined to a heading, an item of a list or a row of a table.
    """
    lines = lines_of(text)
    margin = _right_margin(lines, PAGE in text)
    if not margin and PAGE not in text:
        return text
    joined: list[str] = []
    blank: list[str] = []  # lines since the last one in `joined`
    for line in lines:
        if not _content(line):
            blank.append(line)
            continue
        is_page_break = PAGE in line or any(PAGE in other for other in blank)
        is_neighbour = bool(joined) and (is_page_break or not blank)
        if is_neighbour and _continues(joined[-1], line, margin, is_page_break):
            joined[-1] = _join(joined[-1], line)  # with it go the blank lines, and the page mark
        else:
            joined += [*blank, line]
        blank = []
    return "".join(joined + blank)


def _right_margin(lines: Sequence[str], has_pages: bool) -> int:
    """Return the width of the full lines of a text; 0 if its lines are whole paragraphs."""
    widths = Counter(_width(_content(line)) for line in lines if _content(line))
    full = {
        width: sum(widths[width - step] for step in range(MARGIN))
        for width in widths
        if MIN_WIDTH <= width <= MAX_WIDTH
    }
    if not full:
        return 0
    margin = max(full, key=lambda width: (full[width], width))
    if full[margin] < max(MIN_FULL_LINES, MIN_FULL_SHARE[has_pages] * widths.total()):
        return 0
    full_lines = [line for line in lines if margin - MARGIN < _width(_content(line)) <= margin]
    num_open = sum(not _ends_sentence(_content(line)) for line in full_lines)
    return margin if num_open >= len(full_lines) / 2 else 0


def _continues(first: str, second: str, margin: int, is_page_break: bool) -> bool:
    """Tell whether a line goes on with the sentence of the line before."""
    indented = second.lstrip(PAGE).startswith(("\u3000", "  ", "\t"))
    before, after = _content(first), _content(second)
    if indented or _ends_sentence(before) or MARKER.match(after):
        return False
    if _is_row(before) or _is_row(after):
        return False
    if margin:
        word = re.match(r"[!-~]+|.\W?", after)
        assert word
        is_full = _width(before) + _width(word[0]) > margin - MARGIN
        is_heading = _width(after) < SHORT * margin and not PUNCTUATION.search(after)
        return is_full and not is_heading
    is_sentence = PUNCTUATION.search(before) is not None and _width(before) >= MIN_WIDTH
    return is_page_break and is_sentence and PUNCTUATION.search(after) is not None


def _ends_sentence(content: str) -> bool:
    return SENTENCE_END.search(content[-MAX_ENDING_CHARS:]) is not None


def _join(first: str, second: str) -> str:
    """Return two lines as one; words are kept apart, Han are not."""
    before, after = first.rstrip(), second.lstrip()
    apart = before[-1].isascii() and after[0].isascii() and not before.endswith("-")
    return before + (" " if apart else "") + after


def _is_row(content: str) -> bool:
    """Tell whether a line looks like a row of a table."""
    num_digits = sum(character.isdigit() for character in content)
    return "|" in content or "\t" in content or num_digits > MAX_DIGITS * len(content)


GAP_OR_BREAK = re.compile("\n|\u3000\u3000")
LEADING_BLANKS = re.compile(r"(?m)^(\f?)([ \t\u3000\xa0]++)")
INNER_BLANKS = re.compile(r"(?<=\S)[ \u3000\xa0]++(?=\S)")
WIDE_GAP = 8  # wide blanks that part lines whatever stands around them
PARAGRAPH_CHARS = 20  # of what follows fewer
SPACED_WORD = re.compile(rf"(?:^|\n)[{HAN}]$")  # its first character, as in 标　　题


def without_indentation(text: str) -> str:
    """Remove the wide blanks that begin paragraphs; inside a line they become a line break.

    Two wide blanks inside a line begin a paragraph after the end of a sentence, or if a paragraph's
    worth of text follows without another gap. After an ordinal such as 第一条, and after the first
    character of a line, they do not.
    """
    if "\u3000" not in text:
        return text
    text = LEADING_BLANKS.sub(lambda found: found[1] if "\u3000" in found[2] else found[0], text)

    def line_break(gap: re.Match[str]) -> str:
        num_wide = gap[0].count("\u3000")
        if num_wide < 2:
            return gap[0]
        before = text[max(0, gap.start() - MAX_ORDINAL_CHARS) : gap.start()]
        after = text[gap.end() : gap.end() + PARAGRAPH_CHARS]
        if ORDINAL.search(before.strip("*# \n")) or SPACED_WORD.search(before):
            return gap[0]
        is_paragraph = len(after) == PARAGRAPH_CHARS and not GAP_OR_BREAK.search(after)
        return "\n" if _ends_sentence(before) or is_paragraph or num_wide >= WIDE_GAP else gap[0]

    return INNER_BLANKS.sub(line_break, text)


# --------------------------------------------------------------------------------------- spaces

HAN_GAP = re.compile(rf" (?<=[{HAN}] ) *(?=[{HAN}])")  # begins with a blank, which is found fast
SINGLE_HAN = re.compile(rf"[{HAN}]")
MAX_ORDINAL_CHARS = 12
MIN_COLUMNS = 3
MAX_COLUMN_CHARS = 24
MAX_GAP_SHARE = 0.1  # gaps a character above which a text without pages is taken for broken


def without_han_spaces(text: str) -> str:
    """Remove the spaces that a layout left between Han characters.

    In a text with pages they mean nothing, except after an ordinal such as 第一章 and in the only
    gap of a heading or of a row of two columns, where one stays, and between the columns of a wider
    table, where a tab takes their place. A text without pages was typed by someone: its spaces
    stay, unless they are everywhere or spread out a whole line.
    """
    if not HAN_GAP.search(text):
        return text
    is_broken = PAGE in text or len(HAN_GAP.findall(text)) > MAX_GAP_SHARE * len(text)
    close_up = _closed_up if is_broken else _closed_up_if_spread
    return "".join(map(close_up, lines_of(text)))


def _closed_up(line: str) -> str:
    if not HAN_GAP.search(line):
        return line
    if _has_columns(line):
        return HAN_GAP.sub("\t", line)
    if _has_one_gap(line):
        return HAN_GAP.sub(" ", line)
    return _joined_words(line)


def _joined_words(line: str) -> str:
    """Remove the gaps of a line but for the one after an ordinal, be that spread out or not."""

    def space(gap: re.Match[str]) -> str:
        before = HAN_GAP.sub("", line[: min(gap.start(), MAX_ORDINAL_CHARS)].strip())
        is_ordinal = gap.start() < MAX_ORDINAL_CHARS and ORDINAL.fullmatch(before)
        return " " if is_ordinal else ""

    return HAN_GAP.sub(space, line)


def _closed_up_if_spread(line: str) -> str:
    if not HAN_GAP.search(line):
        return line
    fields = line.split()
    is_spread = len(fields) > 1 and all(SINGLE_HAN.fullmatch(field) for field in fields)
    return _joined_words(line) if is_spread else line


def _has_one_gap(line: str) -> bool:
    """Tell a heading or a row of two columns from a sentence, and from words spread out."""
    fields = line.split()
    lengths = list(map(len, fields))
    is_pair = len(fields) == 2 and min(lengths) > 1 and max(lengths) <= MAX_COLUMN_CHARS
    return is_pair and not CLAUSE.search(line)


def _has_columns(line: str) -> bool:
    """Tell a row of a table from a sentence or a title that is spread out."""
    fields = line.split()
    if len(fields) < MIN_COLUMNS or CLAUSE.search(line) or MARKER.match(line.lstrip(PAGE)):
        return False
    num_single = sum(SINGLE_HAN.fullmatch(field) is not None for field in fields)
    return max(map(len, fields)) <= MAX_COLUMN_CHARS and 2 * num_single <= len(fields)


def without_trailing_space(text: str) -> str:
    """Remove blanks at the ends of lines and of the text, and blank lines beyond one."""
    text = "\n".join(line.rstrip(" \t") for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", text).strip(" \t\n")


# ---------------------------------------------------------------------------------- boilerplate

FRONT_MATTER = re.compile(r"\A---\n(?:[\w-]+:.*\n)+---\n")
COMMENT = re.compile(r"<!--(?:(?!<!--|-->).)*-->\n?", re.DOTALL)
LINK_MARK = re.compile("[|｜>›»]")
LINKS = re.compile(r"\s*[|｜>›»]\s*")
MIN_LINKS = 4
MAX_LINK_CHARS = 8
MAX_NAVIGATION_CHARS = 400
MIN_BLOCK_LETTERS = {1: 10, 2: 20, 3: 20}  # of so many lines that may not be repeated as a whole
MAX_RUN = 50  # equal lines in a row
TAG = re.compile(r"<[^<>]{1,200}>")


def without_comments(text: str) -> str:
    """Remove the front matter of Markdown, and comments of markup."""
    return COMMENT.sub("", FRONT_MATTER.sub("", text))


def line_remover(pattern: str) -> Callable[[str], str]:
    """Return the function that removes lines which a regular expression matches as a whole."""
    expression = re.compile(pattern)

    def without_matches(text: str) -> str:
        contents = contents_of(text)
        gone = [index for index, line in enumerate(contents) if line and expression.fullmatch(line)]
        return without(lines_of(text), gone) if gone else text

    return without_matches


def without_navigation(text: str) -> str:
    """Remove lines of links, such as `首页 > 新闻 > 政策 > 正文`: at least 4 short words."""
    if not LINK_MARK.search(text):
        return text
    lines = lines_of(text)
    return without(lines, [index for index, line in enumerate(lines) if _is_navigation(line)])


def _is_navigation(line: str) -> bool:
    content = _content(line)
    if len(content) > MAX_NAVIGATION_CHARS or content.startswith("|"):
        return False
    if PUNCTUATION.search(content):
        return False
    links = LINKS.split(content)
    return len(links) >= MIN_LINKS and all(0 < len(link) <= MAX_LINK_CHARS for link in links)


def without_repeated_lines(text: str) -> str:
    """Remove the second of two equal blocks of 1 to 3 lines in a row, however often it follows.

    Blocks count if they hold 10 letters, or 20 in several lines; shorter lines, such as the cells
    of a table, if more than 50 of them are equal.
    """
    lines = lines_of(text)
    kept: list[int] = []
    contents: list[str] = []  # of the lines kept
    run = 0  # equal lines at the end of `kept`
    flood = ""  # the line of a long run
    all_contents = contents_of(text)
    for index, content in enumerate(all_contents):
        if not content or content == flood:
            continue
        flood = ""
        run = run + 1 if contents and contents[-1] == content else 1
        kept.append(index)
        contents.append(content)
        num_repeated = _repeated_block(contents)
        if run > MAX_RUN:
            num_repeated = run - 1
            flood = content
        if num_repeated:
            del kept[-num_repeated:], contents[-num_repeated:]
            run = 1
    gone = {index for index, content in enumerate(all_contents) if content}.difference(kept)
    return without(lines, gone)


def _repeated_block(contents: Sequence[str]) -> int:
    """Return how many lines at the end repeat those before them; 0 for none."""
    for size, least in MIN_BLOCK_LETTERS.items():
        block = contents[-size:]
        if block == contents[-2 * size : -size]:
            num_letters = sum(len(LETTER.findall(TAG.sub("", content))) for content in block)
            return size if num_letters >= least else 0
    return 0


# -------------------------------------------------------------------------------------- helpers


@lru_cache(maxsize=1)
def lines_of(text: str) -> Sequence[str]:
    """Return the lines of a text, each with its line feed; a page begins a line.

    The last result is kept, since most rules leave a text as it is.
    """
    if PAGE in text:
        return LINE.findall(text)
    *ended, last = text.split("\n")
    lines = [line + "\n" for line in ended]
    return [*lines, last] if last else lines


@lru_cache(maxsize=1)
def contents_of(text: str) -> Sequence[str]:
    """Return the lines of a text without the blanks around them."""
    return list(map(_content, lines_of(text)))


def _content(line: str) -> str:
    return line.strip()


def _width(content: str) -> int:
    """Return the width of a line on paper: 2 for a Han character, as are its bytes in GB18030."""
    return len(content.encode("gb18030", "replace"))


def _runs(indices: Iterable[int], belongs: Callable[[int], bool]) -> list[list[int]]:
    """Return the runs of neighbouring indices that belong."""
    runs: list[list[int]] = [[]]
    for index in indices:
        if belongs(index):
            runs[-1].append(index)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def without(lines: Sequence[str], removed: Collection[int]) -> str:
    """Return the text without some of its lines; the marks of its pages stay."""
    gone = set(removed)
    if not gone:
        return "".join(lines)
    kept = list(lines)
    for index in gone:
        kept[index] = PAGE * lines[index].startswith(PAGE)
    return "".join(kept)
