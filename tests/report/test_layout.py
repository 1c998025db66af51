"""Columns fit a terminal whatever the script, and are complete where there is none."""

from soaes.report.layout import clip, columns, display_width, printable, wrap

ROWS = [["name", "text"], ["a", "海泽投资集团全年实现营业收入"], ["long", "short"]]


def test_a_chinese_character_takes_two_columns():
    assert display_width("海a") == 3 and display_width("e\u0301") == 1
    assert clip("海泽投资", 6) == "海泽…" and clip("海泽投资", 8) == "海泽投资"


def test_columns_fit_the_width_and_are_whole_without_one():
    lines = columns(ROWS, 24, "  ")
    assert max(map(display_width, lines)) <= 24 and "…" in lines[1]
    assert all(line.startswith("  ") for line in lines)
    whole = columns(ROWS, None)
    assert whole[1] == "a     海泽投资集团全年实现营业收入"
    assert columns([], 80) == []


def test_nothing_printed_commands_the_terminal():
    assert printable("a\n\x1b[2J海") == "a\\n\\x1b[2J海"


def test_sentences_are_wrapped_or_one_line():
    assert wrap("a b c", None, "  ") == ["  a b c"]
    assert wrap("aa bb cc", 7, " ", "  ") == [" aa bb", "   cc"]
    assert wrap("ok   aa bb", 9, "", "  ") == ["ok   aa", "  bb"], "columns of a line stay"
    assert wrap("海泽 投资 集团", 9) == ["海泽 投资", "集团"]
    assert wrap("a /a/long/path b", 5) == ["a", "/a/long/path", "b"]
