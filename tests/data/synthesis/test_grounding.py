"""Facts are in the span or they are named: 200 planted edits, and paraphrases that must pass."""

import random

import pytest

from soaes.data.annotation.quotes import find_quote
from soaes.data.synthesis import grounding
from soaes.data.synthesis.grounding import ungrounded

TITLE = "企业国有资产监督管理办法"
# Sentences of the kinds that laws, reports and filings are made of.
SPANS = [
    "第{a}条 国务院国有资产监督管理委员会应当自{y}年{m}月{d}日起{b}日内，按{p}%收取收益。",
    "{y}年，中国华能集团有限公司实现营业收入{a}.{p}亿元，同比增长{p}.{m}%，资产负债率为{b}%。",
    "根据《中华人民共和国公司法》第{a}条，北京市国有资产管理局批准设立{b}家企业，注册资本{p}万元。",
    "财政部、国家税务总局于{y}年{m}月{d}日联合印发《国有资本经营预算管理办法》，自{y}年{d}月起施行。",
    "招商银行在{m}个省设有{a}家分支机构，员工{b}{p}人，不良率降至{p}.{d}%。",
]
WORDS = {
    "国务院国有资产监督管理委员会": "国家发展和改革委员会",
    "中国华能集团": "中国华电集团",
    "中华人民共和国公司法": "中华人民共和国证券法",
    "北京市国有资产管理局": "上海市国有资产管理局",
    "财政部": "商务部",
    "国家税务总局": "国家统计局总局",
    "国有资本经营预算管理办法": "国有资本收益收取办法",
    "招商银行": "浦发银行",
}


def span(rng):
    values = {"y": rng.randint(1990, 2029), "m": rng.randint(2, 12), "d": rng.randint(2, 28)}
    values |= {"a": rng.randint(20, 99), "b": rng.randint(31, 60), "p": rng.randint(3, 9)}
    return rng.choice(SPANS).format(**values)


def edited(text, rng):
    """A text with one number, date, percentage, title or organisation changed."""
    names = [name for name in WORDS if name in text]
    if names and rng.random() < 0.4:
        name = rng.choice(names)
        return text.replace(name, WORDS[name])
    digits = [index for index, character in enumerate(text) if character.isdigit()]
    index = rng.choice(digits)
    digit = rng.choice([digit for digit in "123456789" if digit != text[index]])
    return text[:index] + digit + text[index + 1 :]


def test_200_planted_edits_are_caught_and_no_faithful_answer_is():
    rng = random.Random(0)
    caught = 0
    for _ in range(200):
        text = span(rng)
        assert ungrounded(text, text, TITLE) == []
        caught += bool(ungrounded(edited(text, rng), text, TITLE))
    assert caught >= 0.98 * 200


SPAN = (
    "第三条 国务院国有资产监督管理委员会应当自2020年1月1日起三十日内，按照百分之五的比例"
    "收取30万元。《公司法》第一百二十条规定，中国石油集团有限公司、北京市审计局共3次上报SASAC。"
)
FAITHFUL = {
    "ISO date": "期限从2020-01-01开始",
    "part of a date": "2020年1月起，即2020年",
    "Chinese date": "自二〇二〇年一月一日起",
    "Chinese and Arabic numerals": "30日内收取三十万元",
    "thousands": "300,000元，即300000元",
    "percentage": "比例为5%，也写作5％",
    "article": "依据《公司法》第120条和第三条",
    "organisation after a verb": "由国务院国有资产监督管理委员会负责，会同北京市审计局",
    "the document's title": "《企业国有资产监督管理办法》有规定",
    "an article that counts nothing": "这是一个规定，一般而言十分明确，有一家企业",
    "list marks": "1. 收取30万元\n2. 三十日内\n（三）按照5%\n四、第一，上报；二、收取",
    "Latin": "上报SASAC",
}
UNFAITHFUL = {
    "year": "自2021年1月1日起",
    "day": "2020年1月11日",
    "Chinese numeral": "三十一日内",
    "percentage": "比例为百分之六",
    "number for percentage": "收取5万元",
    "unit": "收取30亿元",
    "a count": "共4次上报",
    "an article that replaces a count": "共一次上报",
    "article": "第一百二十一条",
    "title": "依据《证券法》",
    "organisation": "由财政部负责",
    "place of an organisation": "上海市审计局",
    "end of an organisation": "中国石油有限公司",
    "middle of an organisation": "中国石化集团有限公司",
    "Latin": "上报NDRC",
}


@pytest.mark.parametrize("kind", FAITHFUL)
def test_the_same_fact_in_another_spelling_passes(kind):
    assert ungrounded(FAITHFUL[kind], SPAN, TITLE) == []


@pytest.mark.parametrize("kind", UNFAITHFUL)
def test_a_fact_that_is_not_there_is_named(kind):
    assert ungrounded(UNFAITHFUL[kind], SPAN, TITLE)


def test_the_decimals_of_a_number_with_a_full_width_point_count():
    assert ungrounded("83.4元", "83．4元") == []
    assert [fact.text for fact in ungrounded("83．5元", "83．4元")] == ["83．5元"]


def test_english_facts():
    text = (
        "On March 5, 2021 China Mobile Ltd paid a dividend of 1,250 million yuan, 40.5% of profit."
    )
    right = "China Mobile paid 1250 million yuan on 5 March 2021, a share of 40.5 percent."
    assert ungrounded(right, text) == []
    wrong = [fact.text for fact in ungrounded("In May 2021 China Unicom paid twelve yuan.", text)]
    assert wrong == ["May 2021", "Unicom", "twelve"]


NUMERALS = {
    "三十五万": 350_000,
    "一百二十": 120,
    "二〇二〇": 2020,
    "十": 10,
    "一亿二千万": 120_000_000,
}


@pytest.mark.parametrize("numeral", NUMERALS)
def test_chinese_numerals(numeral):
    (fact,) = grounding.facts(f"共{numeral}元")
    assert fact.key == ("number", NUMERALS[numeral], "元")


def test_a_quote_is_found_by_its_letters_and_its_place_told_in_characters():
    text = "前文。\n（一）国有 资产，\n是指“国家”出资。\n后文"
    start, end = find_quote("国有资产是指国家出资", text)
    assert text[start:end] == "国有 资产，\n是指“国家”出资。"
    start, end = find_quote("是指“国家”", text)
    assert text[start:end] == "是指“国家”"
    assert find_quote("国有资本", text) is find_quote("国有", text) is None


LONG = {"digits": "一" * 6000 + "元", "hundred millions": "一" + "亿" * 1000 + "点五元"}


@pytest.mark.parametrize("kind", LONG)
def test_a_numeral_of_thousands_of_characters_is_a_number_like_others(kind):
    assert [fact.kind for fact in ungrounded(LONG[kind], "无")] == ["number"]
    assert ungrounded(LONG[kind], LONG[kind]) == []
