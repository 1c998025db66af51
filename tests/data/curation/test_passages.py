"""A document is cut into passages that hold all of it; once it is cleaned, they are found again."""

import pytest

from soaes.data.curation.passages import MAX_CHARS, MIN_CHARS, find, fingerprint, passages

ARTICLES = [
    f"第{number}条 国有资产监督管理机构依法履行出资人职责，第{number}项。" for number in range(60)
]


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(ARTICLES),
        "".join(ARTICLES) * 3,
        "短。",
        "\n\n\n",
        "没有句号的一行" * 200,
        "标题\n" + "甲。" * 300 + "\n尾。",
    ],
    ids=["lines", "one line", "short", "empty", "no full stop", "mixed"],
)
def test_passages_hold_the_text_in_order_and_once(text):
    spans = list(passages(text))
    joined = "".join(text[start:end] for start, end in spans)
    assert "".join(joined.split()) == "".join(text.split())
    assert all(before.end <= after.start for before, after in zip(spans, spans[1:], strict=False))
    if len(spans) > 1:
        assert all(end - start >= MIN_CHARS for start, end in spans)
    if "。" in text:
        assert all(end - start < MIN_CHARS + MAX_CHARS + 60 for start, end in spans)


def test_a_passage_is_found_whatever_cleaning_does_to_its_spaces_and_punctuation():
    text = "目录\n" + "\n".join(ARTICLES)
    start, end = list(passages(text))[1]
    wanted = [fingerprint(text[start:end]), fingerprint("别的文件里的一段话")]
    cleaned = text.replace("目录\n", "").replace("，", ",").replace("\n", " ").replace("第", "第 ")
    found, missing = find(cleaned, wanted)
    assert missing is None
    assert fingerprint(cleaned[found.start : found.end]) == wanted[0]
    assert find(cleaned.replace("出资人", "股东"), wanted) == [None, None]
    assert find("", wanted) == [None, None] and find(text, [fingerprint("，。")]) == [None]
