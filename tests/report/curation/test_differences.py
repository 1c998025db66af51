"""What differs between two texts is marked, and nothing else."""

import pytest

from soaes.report.curation import differences
from soaes.report.curation.differences import marked, plain, side_by_side


def parts(pieces):
    """The texts of the pieces that differ."""
    return [text for text, differs in pieces if differs]


@pytest.mark.parametrize(
    ("before", "after", "removed", "added"),
    [
        pytest.param("国 务 院 令", "国务院令", [" ", " ", " "], [], id="blanks"),
        pytest.param("前文\n第3页\n后文继续说明", "前文\n后文继续说明", ["第3页\n"], [], id="line"),
        pytest.param(
            "公司\n2020 年报\n2020 年报\n2 / 195",
            "公司\n2 / 195",
            ["2020 年报\n2020 年报\n"],
            [],
            id="whole-lines",
        ),
        pytest.param("⼲部和⻓官", "干部和长官", ["⼲", "⻓"], ["干", "长"], id="replaced"),
        pytest.param("共１２３名人员", "共123名人员", ["１２３"], ["123"], id="replaced-in-a-row"),
        pytest.param(
            "正文到此为止，完。 \n\n", "正文到此为止，完。", [" \n\n"], [], id="at-the-end"
        ),
        pytest.param(
            "目录..1\n目录..2\n正文甲乙丙", "正文甲乙丙", ["目录..1\n目录..2\n"], [], id="head"
        ),
    ],
)
def test_what_a_rule_removed_or_replaced_is_marked(before, after, removed, added):
    old, new = marked(before, after)
    assert (parts(old), parts(new)) == (removed, added)
    assert plain(old) == before and plain(new) == after


def test_where_an_excerpt_was_cut_nothing_is_marked():
    """Both excerpts have 12 characters; the text after goes on further in the document."""
    old, new = marked("甲 乙 丙丁戊己庚辛壬", "甲乙丙丁戊己庚辛壬癸子丑")
    assert parts(old) == [" ", " "] and parts(new) == []


def test_a_removal_longer_than_the_excerpt_is_marked_to_its_end():
    old, new = marked("开头" + "页眉" * 30, "开头正文从这里开始")
    assert parts(old) == ["页眉" * 30] and parts(new) == []


def test_documents_side_by_side_show_what_differs_and_little_else():
    left = "".join(f"第{number}条，共同的规定。\n" for number in range(200))
    right = left.replace("第100条，", "第100条，不")
    comparison = side_by_side(left, right, 10_000)
    (row,) = [row for row in comparison["rows"] if "left" in row]
    assert (parts(row["left"]), parts(row["right"])) == ([], ["不"])
    skipped = sum(row.get("skipped", 0) for row in comparison["rows"])
    shown = sum(len(row.get("same", "")) for row in comparison["rows"])
    assert skipped + shown + len(plain(row["left"])) == len(left) and shown < 200
    assert comparison["more"] == 0 and not comparison["cut"]


def test_sentences_of_the_same_letters_are_equal():
    left = "**第一条** 国家实行审计监督制度。\n第二条　依照本法执行。\n"
    right = "第一条　国家实行审计监督制度；\n第二条 根据本法执行。\n"
    comparison = side_by_side(left, right, 1000)
    (row,) = [row for row in comparison["rows"] if "left" in row]
    assert "依照" in plain(row["left"]) and "审计" not in plain(row["left"])


def test_what_is_beyond_the_caps_is_counted():
    left = "".join(f"甲{number}。" for number in range(100))
    comparison = side_by_side(left, left.replace("甲", "乙丙丁戊。己"), 10_000)
    rows = [row for row in comparison["rows"] if "left" in row]
    assert len(rows) <= differences.MAX_ROWS
    assert side_by_side("甲" * 11, "甲" * 11, 10)["cut"]


def test_texts_of_one_repeated_line_are_compared_at_once():
    text = "\n" * 50_000 + "甲。" * 20_000
    assert side_by_side(text, text[:-5], 60_000)["cut"]
