"""Which dialogues are Chinese, and which answers only decline."""

import pytest

from soaes.data.curation import chat_formats
from soaes.data.curation.dialogue_filters import is_chinese, is_refusal


def dialogue(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


CHINESE = {
    "plain": ("国资委是什么？", "国务院直属特设机构。"),
    "code": ("写一个冒泡排序", "```python\ndef sort(numbers):\n    return sorted(numbers)\n```"),
    "bare code": ("用 Python 写一个快速排序", "def quick_sort(numbers): return numbers or []"),
    "translation": ("Translate into Chinese: the state owns it all", "国家拥有这一切。"),
    "figures alone": ("12 + 30 = ?", "42"),
    "names in kana": (
        "介绍三位日本歌手及其代表作品",
        "宇多田光（ヒカル）是日本流行音乐史上唱片销量最高的歌手之一，代表作有多张畅销专辑，在亚洲各地都拥有大量的听众和很高的声誉。",
    ),
    "traditional": ("國有資產由誰監管？", "由國資委監管。"),
}
OTHER = {
    "English": ("Who owns it?", "The state does, under its commission (国资委) in Beijing."),
    "Japanese": ("国有資産とは何ですか？", "国が所有する資産のことです。"),
    "Korean": ("국유 자산은 무엇입니까?", "국가가 소유한 자산입니다."),
}


@pytest.mark.parametrize("name", CHINESE)
def test_chinese_is_kept_with_code_figures_and_names(name):
    assert is_chinese(dialogue(*CHINESE[name]))


@pytest.mark.parametrize("name", OTHER)
def test_other_languages_are_not_chinese(name):
    assert not is_chinese(dialogue(*OTHER[name]))


@pytest.mark.parametrize(
    "answer",
    [
        "抱歉，我无法回答这个问题。",
        "很抱歉，作为一个人工智能助手，我不能提供此类信息。",
        "我无法访问您提及的文章。",
        "对不起，但是我不能协助完成这一请求。",
        "I'm sorry, but I can't assist with that.",
        "As an AI language model, I cannot provide legal advice.",
    ],
)
def test_an_answer_that_only_declines_is_a_refusal(answer):
    assert is_refusal(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "我们不能对全球变暖视而不见。",
        "抱歉，我无法查看实时行情，但我可以介绍它的计算方法：……",
        "非常抱歉给您带来不便，我们将在三日内退款。",
        "I am sorry to hear of your loss. Please accept my condolences.",
        "债务人不能清偿到期债务的，可以申请破产。",
        "抱歉，我无法给出唯一的答案。" + "国有资本经营预算应当单独编制。" * 20,
    ],
)
def test_an_answer_that_says_more_is_none(answer):
    assert not is_refusal(answer)


@pytest.mark.parametrize(
    "label",
    [
        ["法律", "金融", "法律"],
        {"zh": ["法律"], "en": ["金融"]},
        '["法律", "金融"]',
        '{"zh": ["法律"], "en": "金融"}',
    ],
    ids=["list", "object", "JSON list", "JSON object"],
)
def test_labels_are_read_each_once_however_they_are_written(label):
    assert chat_formats.categories({"label": label}) == ["法律", "金融"]
    assert chat_formats.categories({"label": label, "category": "财务、金融"}) == ["财务、金融"]
