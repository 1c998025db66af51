"""Laws of the cleaning rules: each takes what it names, and nothing else."""

import re
import time
import tracemalloc
from pathlib import Path
from random import Random

import pytest
import yaml

from soaes.data.curation import characters, cleaning, settings, shared_lines
from soaes.data.curation.document import SourceDocument, curated
from soaes.data.readers.base import MAX_LINES

ROOT = Path(__file__).parents[3]
CONF = yaml.safe_load((ROOT / "conf/cleaning/documents.yaml").read_text(encoding="utf-8"))
ALL = cleaning.rules(cleaning.RULE_NAMES, CONF["boilerplate"])


def clean(text, page_starts=(), names=None):
    rules = ALL if names is None else cleaning.rules(names, {})
    texts = [after for _, after in cleaning.cleaned(text, page_starts, rules)]
    return texts[-1] if texts else text


def paged(pages):
    """The text of pages and where they start, as a reader gives them."""
    starts = [0]
    for page in pages:
        starts.append(starts[-1] + len(page) + 1)
    return "\n".join(pages), starts[:-1]


def test_settings_and_conf_name_the_rules_that_there_are():
    assert sorted(cleaning.RULE_NAMES) == list(settings.CLEANING_RULES)
    assert CONF["rules"] == list(cleaning.RULE_NAMES)
    with pytest.raises(ValueError, match="broken line"):
        settings.CleaningSettings(rules=["broken line"], boilerplate={})
    with pytest.raises(ValueError, match=r"boilerplate.x=\(: must be a regular expression"):
        settings.CleaningSettings(rules=[], boilerplate={"x": "("})


# ------------------------------------------------------------------------------ conservation


def is_subsequence(short, long):
    characters_left = iter(long)
    return all(character in characters_left for character in short)


PIECES = [
    *(
        "国务院 关于",
        "　　",
        "第一条　",
        "ＡＢ12",
        "⼲部",
        "e\u0301",
        "\u200b",
        "<|im_",
        "end|>",
        "\r\n",
    ),
    *(
        "。",
        "，",
        "\n",
        "\n\n",
        "\f",
        "3 / 9",
        "- 3 -",
        "<!-- a -->",
        "目录",
        "第一章 总则......3",
        " ",
    ),
    *("\ud800", "首页 > 新闻 > 政策 > 正文", "上一篇：", "|", "word", "一二三四五六七八九十" * 3),
]


@pytest.mark.parametrize("rule", ALL, ids=lambda rule: rule.name)
def test_every_rule_removes_characters_or_replaces_them_one_for_one(rule):
    random = Random(rule.name)
    for _ in range(300):
        text = "".join(random.choices(PIECES, k=random.randint(1, 40)))
        after = rule.function(text)
        assert after.count(cleaning.PAGE) <= text.count(cleaning.PAGE)
        if rule.name == "character table":
            composed = text.replace("e\u0301", "é")
            assert len(after) == len(composed)
        else:  # a blank may become a line break or a tab, and the other way round
            blank = re.compile(r"[\s\u3000]")
            assert is_subsequence(blank.sub(" ", after), blank.sub(" ", text))


@pytest.mark.parametrize("seed", range(3))
def test_all_rules_together_account_for_every_character(seed):
    random = Random(seed)
    pages = ["".join(random.choices(PIECES, k=30)).replace("\f", "") for _ in range(9)]
    text, starts = paged(pages)
    removed = {}
    before = text
    for name, after in cleaning.cleaned(text, starts, ALL):
        removed[name] = removed.get(name, 0) + len(before) - len(after)
        before = after
    assert len(text) == len(before) + sum(removed.values()) and cleaning.PAGE not in before
    assert min(removed.values()) >= 0


def test_a_document_of_as_many_lines_as_are_read_takes_200_mb_beside_its_text():
    num_lines = 5000
    text = "\n".join(f"国有{number}" for number in range(num_lines))
    tracemalloc.start()
    try:
        clean(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak / num_lines * MAX_LINES < 200e6


@pytest.mark.parametrize(
    "text, expected",
    [
        ("\x1b[31m国有\x1b[0m资产", "国有资产"),
        ("\x1b[1;38;5;200m国有\x1b[K", "国有"),
        ("\x1b]0;window\x07国有\x1b]8;;http://a\x1b\\资产", "国有资产"),
        ("\x1b[国有，[31m]", "[国有，[31m]"),
        ("\x1b]没有结尾\n资产", "]没有结尾\n资产"),
    ],
    ids=["colour", "several", "window and link", "none", "no end"],
)
def test_escape_sequences_of_terminals_go_whole(text, expected):
    assert clean(text, names=["invisible characters"]) == expected


@pytest.mark.parametrize(
    "text",
    ["国" + " " * 50_000 + "x", "。" + "　" * 50_000, "." * 50_000, "\n" * 50_000 + "x"]
    + ["\x1b]0;" * 30_000, "\x1b[" + "1;" * 30_000]
    + ["目录\n" * 8_000, "<!--" * 8_000, "- " * 30_000, "否\n" * 30_000],
    ids=[
        "blanks",
        "wide",
        "dots",
        "breaks",
        "windows",
        "colours",
        "contents",
        "comments",
        "links",
        "cells",
    ],
)
def test_rules_take_time_linear_in_the_text(text):
    began = time.process_time()
    clean(text)
    assert time.process_time() - began < 2  # quadratic: minutes


# -------------------------------------------------------------------------------- characters


def test_the_table_unifies_what_means_the_same_and_leaves_punctuation():
    assert (
        clean("⼲部、⻓江：⻔，ＡＢｃ１２（㎡①…“”）；豈。")
        == "干部、长江：门，ABc12（㎡①…“”）；豈。"
    )
    every = "".join(map(chr, range(0x2E80, 0x2FE0)))
    assert not re.search("[\u2e80-\u2fdf]", characters.unified(every))
    assert characters.unified("\uf900\u3000\u00a0x") == "豈  x"


PUNCTUATION = "。，、；：？！（）《》“”‘’【】—…·"


def test_cleaning_keeps_every_mark_of_punctuation():
    random = Random(0)
    letters = "国资委监管企业abc12"
    sentences = ["".join(random.choices(letters + PUNCTUATION, k=40)) for _ in range(50)]
    text = "\n".join(sentences)
    cleaned = clean(text)
    assert [c for c in cleaned if c in PUNCTUATION] == [c for c in text if c in PUNCTUATION]


def test_what_no_one_sees_is_removed():
    text = "国\u200b有\u202e企\u2066业\U000e0041\ufeff\x00\ud800<|im_\u200bend|>"
    assert clean(text) == "国有企业"
    assert clean("می\u200cخواهم 👨\u200d👩") == "می\u200cخواهم 👨\u200d👩"


def test_lines_are_not_joined_into_a_control_token():
    wide = "国" * 30
    text = "\n".join([wide + "<|im_", "end|>" + wide[:27]] + [wide + "国国国"] * 8)
    assert "<|im_end|>" not in clean(text)


# -------------------------------------------------------------------------------------- pages

HEADINGS = [
    "第{}节 公司治理",
    "{}、重要事项",
    "（{}）经营情况",
    "经营情况讨论与分析",
    "公司业务概要",
]
HAN = [chr(point) for point in range(0x4E00, 0x4F00)]
NUMERALS = "一二三四五六七八九十"
SENTENCE = "公司始终坚持稳健经营的原则持续优化产业布局推动高质量发展并依法履行信息披露义务"


def report(num_pages=50, head="某某集团有限公司年度报告"):
    """Pages of wrapped lines: a sentence breaks over the end of each, or a heading stands there."""
    pages, sentences, headings = [], [], []
    carried = ""
    random = Random(0)
    for number in range(num_pages):
        body = carried + "".join(
            f"{SENTENCE}，{chr(0x5000 + number)}号第{line}行。" for line in range(12)
        )
        lines = re.findall(".{1,40}", body)
        name = "".join(random.choices(HAN, k=6))
        open_line = (
            f"{name}页的最后一句话没有说完而且一直写到右边的页边为止所以要和下一页的开头连起来"[:40]
        )
        rest = f"才算是完整的{name}句。"
        if number % 5 == 4:
            heading = HEADINGS[number // 5 % len(HEADINGS)].format(NUMERALS[number // 5])
            headings.append(heading)
            lines.append(heading)
            carried = ""
        else:
            lines[-1] = lines[-1] if lines[-1].endswith("。") else lines[-1] + "。"
            lines.append(open_line)
            sentences.append(open_line + rest)
            carried = rest
        pages.append("\n".join([f"{head} {number + 1}", *lines, f"{number + 1} / {num_pages}"]))
    return *paged(pages), sentences, headings


def test_sentences_are_joined_over_page_breaks_and_headings_are_not():
    text, starts, sentences, headings = report()
    lines = clean(text, starts).split("\n")
    joined = [sentence for sentence in sentences if any(sentence in line for line in lines)]
    assert len(joined) >= 0.98 * len(sentences)
    assert all(heading in lines for heading in headings)
    for number in range(50):  # the lines within a page
        assert any(f"义务，{chr(0x5000 + number)}号第11行。" in line for line in lines)


def test_a_running_head_is_kept_once_and_page_numbers_are_not():
    text, starts, *_ = report()
    lines = clean(text, starts).split("\n")
    assert sum("年度报告" in line for line in lines) == 1
    assert not any(re.fullmatch(r"\d+ / 50", line) for line in lines)


@pytest.mark.parametrize("num_pages, share", [(4, 1.0), (20, 0.25)], ids=["few pages", "few lines"])
def test_a_title_is_no_running_head(num_pages, share):
    pages = [f"{chr(0x4E00 + n)}正文\n其余{chr(0x5E00 + n)}" for n in range(num_pages)]
    for number in range(int(num_pages * share)):
        pages[number] = "监事会工作报告\n" + pages[number]
    text, starts = paged(pages)
    assert clean(text, starts, ["running heads"]) == text


def test_a_line_of_the_text_that_also_ends_pages_is_no_running_head():
    pages = ["甲\n□适用 √不适用\n" + "□适用 √不适用\n乙丙\n" * 6 + "□适用 √不适用"] * 10
    text, starts = paged(pages)
    assert clean(text, starts, ["running heads"]) == text


@pytest.mark.parametrize(
    "form", ["{}", "- {} -", "— {} —", "第 {} 页", "第{}页 共20页", "Page {} of 20"]
)
def test_page_numbers_in_every_form(form):
    pages = [f"正文{n}段\n合计\n1,204\n{form.format(n + 3)}" for n in range(17)]
    text, starts = paged(pages)
    assert clean(text, starts, ["page numbers"]).count("\n") == text.count("\n") - 16
    table = [f"正文{n}段\n合计\n{(n * 37) % 11}" for n in range(17)]
    text, starts = paged(table)
    assert clean(text, starts, ["page numbers"]) == text


def test_page_numbers_without_pages_must_ascend():
    rising = "".join(f"段落{n}。\n- {n} -\n" for n in range(1, 6))
    assert clean(rising, names=["page numbers"]) == "".join(f"段落{n}。\n" for n in range(1, 6))
    falling = "".join(f"段落{n}。\n- {n} -\n" for n in range(6, 1, -1))
    assert clean(falling, names=["page numbers"]) == falling


def test_form_feeds_of_a_text_file_mark_its_pages():
    pages = [f"正文{n}段\n{n}" for n in range(9)]
    cleaned = clean("\n\f".join(pages), names=["page numbers", "white space"])
    assert cleaned.split("\n\n") == [f"正文{n}段" for n in range(9)]


# ---------------------------------------------------------------------------- other lines


def test_tables_of_contents_are_removed_with_their_heading():
    body = "第一章 总则\n第一条 甲。\n第二章 监管\n第二条 乙。\n第三章 附则\n第三条 丙。"
    leaders = "目 录\n第一章 总则......1\n第二章 监管......2\n第三章 附则……3\n"
    plain = "**目　录**\n\n- 第一章 总则\n- 第二章 监管\n- 第三章 附则\n\n"
    assert clean(leaders + body) == clean(plain + body) == body
    one_line = "目录\n" + "".join(f"第{n}节 {HAN[:9]}{'.' * 90} {n}" for n in range(1, 9)) + "\n"
    assert clean(one_line + body) == body
    sums = "".join(f"{name}{'.' * 9} {sum}  " for name, sum in (("收", 90), ("支", 70), ("余", 20)))
    assert clean(sums) == sums.strip()
    short = "目录\n第一章 总则\n第四章 别的\n"
    assert clean(short + body) == short + body


def test_lines_are_joined_in_wrapped_text_alone():
    text = "".join(f"{SENTENCE}{HAN[n]}，" for n in range(30)) + "止。"
    wrapped = "\n".join(re.findall(".{1,38}", text))
    assert clean(wrapped) == text
    items = "\n".join(f"{n}、{SENTENCE}" for n in range(30))
    assert clean(items) == items
    rows = "\n".join(f"{SENTENCE[:24]} {n},204,113.5 {n},663,905.1 4.11" for n in range(30))
    assert clean(rows) == rows
    english = "the state owns the enterprise and the commission supervises it " * 20
    lines = re.findall(r"\S.{1,70}(?=\s)", english)
    assert clean("\n".join(lines)) == english.strip()


def test_wide_blanks_part_the_paragraphs_of_one_long_line():
    assert clean("　　各位代表：　　我代表国务院　　　作报告。　　一、回顾") == (
        "各位代表：\n我代表国务院   作报告。\n一、回顾"
    )
    paragraph = "过去一年各项事业全面发展，人民生活继续改善"
    assert clean(f"政府工作报告{'　' * 9}总理　　一、回顾　　{paragraph}") == (
        f"政府工作报告\n总理  一、回顾\n{paragraph}"
    )
    assert clean(f"日期：\n标　　题：{paragraph}") == f"日期：\n标  题：{paragraph}"
    assert clean(f"**第一条**　　{paragraph}\n第一章　　总　　则") == (
        f"**第一条**  {paragraph}\n第一章  总  则"
    )


def test_spaces_between_han_go_where_a_layout_left_them():
    page = "国 务院 of the State 办公厅，张 竞\n第一章 总则\n姓名 职务 任期\n"
    text, starts = paged([page] * 2)
    first = clean(text, starts).split("\n\n")[0]
    assert first == "国务院 of the State 办公厅，张竞\n第一章 总则\n姓名\t职务\t任期"
    assert clean("- 烤箱 大小不限\n通　知\n正文没有空格的一句话。") == (
        "- 烤箱 大小不限\n通知\n正文没有空格的一句话。"
    )


@pytest.mark.parametrize(
    "line, expected",
    [
        ("公司的中文名称   金宇生物技术股份有限公司", "公司的中文名称 金宇生物技术股份有限公司"),
        ("公司简介  主要财务指标", "公司简介 主要财务指标"),
        ("第 四 节  经 营 情 况", "第四节 经营情况"),
        ("第四节 经营", "第四节 经营"),
        ("目 录", "目录"),
        ("张 竞", "张竞"),
        ("国 务院办公厅", "国务院办公厅"),
        ("会议通过了 决议，并公布。", "会议通过了决议，并公布。"),
    ],
)
def test_the_only_gap_of_a_heading_or_a_row_stays(line, expected):
    text, starts = paged([f"{line}\n正文没有空格。\n"] * 2)
    assert clean(text, starts).split("\n")[0] == expected


def test_a_heading_that_is_spread_out_keeps_its_ordinal_apart_without_pages():
    assert clean("第 四 节  经 营 情 况\n正文没有空格的一句话。").split("\n")[0] == (
        "第四节 经营情况"
    )


@pytest.mark.parametrize(
    "line",
    [
        "版权所有权属于作者，未经许可不得复制",
        "版权所有者可以许可他人使用其作品",
        "Copyright law protects original works of authorship",
        "所在位置：内蒙古自治区鄂尔多斯市东胜区",
        "承办：北京市国资委，会议通过了决议",
    ],
)
def test_a_sentence_that_begins_like_boilerplate_stays(line):
    assert clean(line) == line


@pytest.mark.parametrize(
    "line",
    [
        "版权所有：国务院国资委",
        "Copyright © 2020 SASAC",
        "(c) 2020 SASAC",
        "Copyright 2020 SASAC",
        "当前位置：首页",
        "您当前的位置：国资委 > 政策",
        "主办单位：国务院国资委",
    ],
)
def test_what_a_site_says_of_itself_goes(line):
    assert clean(line) == ""


def test_boilerplate_goes_by_whole_lines():
    lines = [
        "扫一扫在手机打开当前页",
        "【打印】 【关闭】",
        "【字体：大 中 小】",
        "京ICP备05070218号",
    ]
    kept = ["主办城市的选择。", "编辑工作应当公开。", "他说：扫一扫在手机打开当前页"]
    assert clean("\n".join(lines + kept)) == "\n".join(kept)
    names = {name for name, _ in cleaning.cleaned("\n".join(lines), (), ALL)}
    assert "boilerplate: scan code" in names and len(names) >= 4
    assert clean("首页 > 新闻 > 政策 > 正文\n| a | b | c | d |") == "| a | b | c | d |"


def test_a_repeated_line_is_left_once_and_a_repeated_clause_of_a_law_stays():
    line = "国有资产监督管理机构依法履行职责。\n"
    assert clean(line * 1000) == line.strip()
    assert clean("否\n" * 1000 + "尾") == "否\n尾"
    block = "第一段国有资产监督管理机构。\n第二段依法履行出资人职责。\n"
    assert clean(block * 3) == block.strip()
    law = f"第一条 甲。\n{line}第二条 乙。\n{line}"
    assert clean(law) == law.strip()
    cells = "<th>1年</th>\n<th>90日</th>\n" * 2 + "67,111,183.56\n" * 3
    assert clean(cells) == cells.strip()


def test_cleaning_twice_changes_nothing():
    text, starts, *_ = report(12)
    once = clean(text, starts)
    assert clean(once) == once


def test_lines_that_many_documents_of_an_origin_end_with_are_known():
    footer = "如果您发现本文有问题，请联系编辑部２０２６"
    texts = []
    for number in range(30):
        name = chr(0x4E00 + number) * 9
        last = footer if number % 3 else f"{name}没有页脚"
        long = "中间的" * 1200 * (number % 2)
        texts.append(
            f"{name}各不相同。\n\n第一章 总则与名词解释的规定\n{'中间的文字。' * 4}\n{long}\n"
            f"{last}\n第九十九条 本法自公布之日起施行\n"
        )
    counted = {}
    for num_documents in (19, 30):
        shared = shared_lines.SharedLines()
        for number, text in enumerate(texts[:num_documents]):
            name = f"corpus/{'few' if number == 4 else 'site'}/{number}.txt"
            shared.add(curated("corpus", name, SourceDocument(text, name)))
        counted[num_documents] = shared.keys()
    assert counted[19] == {}
    assert list(counted[30]) == ["corpus/site"]
    settings = (cleaning.RULE_NAMES, {}, counted[30]["corpus/site"])
    for text in texts[1], texts[2]:
        names = [name for name, _ in cleaning.cleaned(text, (), cleaning.rules(*settings))]
        (after,) = [
            text
            for name, text in cleaning.cleaned(text, (), cleaning.rules(*settings))
            if name == "shared lines"
        ]
        assert "shared lines" in names and "编辑部" not in after
        assert "第一章 总则" in after and "第九十九条" in after and "各不相同" in after
    middle = "开头一段。\n" + "甲乙丙丁。\n" * 3 + footer + "\n" + "戊己庚辛。\n" * 3
    assert shared_lines.remover(counted[30]["corpus/site"])(middle) == middle


def test_rare_lines_are_forgotten_and_frequent_ones_are_not():
    shared = shared_lines.SharedLines()
    for number in range(1000):
        letters = "".join(chr(0x4E00 + number + index * 17) for index in range(12))
        text = f"{letters}\n" + ("本站的页脚写着这样一行文字" if number >= 600 else "")
        shared.add(
            curated("corpus", "corpus/a.txt", SourceDocument(text, f"corpus/site/{number}.txt"))
        )
    assert len(shared._counts["corpus"]) < 2 * shared_lines.WIDTH
    assert shared.keys() == {"corpus": frozenset({"本站的页脚写着这样一行文字"})}
