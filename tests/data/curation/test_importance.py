"""Importance is computed from titles, dates and citations."""

import pytest

from soaes.data.curation import importance


def test_force_falls_from_the_constitution_to_notices():
    titles = [
        "中华人民共和国宪法",
        "中华人民共和国企业国有资产法",
        "企业国有资产监督管理暂行条例(2019-03-02)",
        "上海市审计条例（2017年修订）",
        "国有资产评估管理办法",
        "年度工作总结",
    ]
    forces = [importance.legal_force(title) for title in titles]
    assert forces == sorted(forces, reverse=True) and len(set(forces)) == len(forces)


@pytest.mark.parametrize("title", ["小炒肉的做法", "统计方法", "我的看法", "物理疗法", "评估办法"])
def test_what_ends_like_a_law_and_is_none_has_not_its_force(title):
    assert importance.legal_force(title) <= 0.4 < importance.legal_force("涉外民事关系法律适用法")


def test_citations_count_other_documents_and_every_spelling_of_a_title():
    citations = importance.Citations(
        ["中华人民共和国公司法(2018-10-26)", "公司法（2023）", "审计法", ""]
    )
    citations.add("依照《公司法》、《中华人民共和国公司法》和《保险法》。", "审计法")
    citations.add("《公司法》《公司法》", "中华人民共和国公司法(2018-10-26)")
    assert citations.of("公司法") == citations.of("中华人民共和国公司法(2018-10-26)") == 1
    assert citations.of("审计法") == citations.of("保险法") == citations.of("") == 0


@pytest.mark.parametrize(
    "day, expected",
    [
        ("2020-01-01", 1.0),
        ("2000-01-01", 0.5),
        ("", 0.5),
        ("2027-01-01", 0.0),
        ("1980", 0.25),
        ("二〇二〇", 0.5),
        ("2019-02-30", 0.5),
    ],
)
def test_a_text_fades_with_age_and_has_no_weight_before_it_is_in_force(day, expected):
    assert importance.recency(day, "2020-01-01") == pytest.approx(expected, abs=1e-3)


def test_the_parts_count_alike():
    topics = {"assets": ["国有资产"], "owners": ["国资委", "出资人"]}
    covered = importance.topic_coverage("国资委监管国有资产。", topics)
    assert covered == 1 and importance.topic_coverage("国资委", topics) == 0.5
    assert importance.topic_coverage("国资委", {}) == 0
    assert importance.Importance(1, 1, 10_000, 1).score == 1
    assert importance.Importance(0.5, 0.5, 0, 0).score == 0.25
