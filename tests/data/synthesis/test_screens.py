"""Laws of the screens: each rejects its own kind by its name, and what is right passes them all."""

import json
from pathlib import Path

import pytest
import yaml

from soaes.data.curation.decontamination import HeldOutQuestions
from soaes.data.synthesis.calls import Reply
from soaes.data.synthesis.parsing import Rejected
from soaes.data.synthesis.screens import Asked, Screener
from soaes.data.synthesis.settings import PromptSettings, ScreenSettings

CONF = Path(__file__).parents[3] / "conf" / "prompt"
TITLE = "企业国有资产法(2008-10-28)"
TEXT = (
    "第十一条 国务院国有资产监督管理机构代表本级人民政府对国家出资企业履行出资人职责。\n"
    "第十二条 履行出资人职责的机构依法享有资产收益、参与重大决策等出资人权利，期限为30日。"
)
QUESTION = "《企业国有资产法》规定由谁履行出资人职责？"
ANSWER = "由国务院国有资产监督管理机构代表本级人民政府履行。"
QUOTE = "国务院国有资产监督管理机构代表本级人民政府对国家出资企业履行出资人职责"
HELD_OUT = "国家出资企业的出资人职责由下列哪个机构履行"


def prompts(language="zh"):
    settings = yaml.safe_load((CONF / f"{language}.yaml").read_text("utf-8"))
    settings.pop("_target_")
    return PromptSettings(**settings)


def held_out():
    questions = HeldOutQuestions()
    options = {"A": "国资委", "B": "财政部", "C": "法院", "D": "工会"}
    question = {"subject": "law", "question": HELD_OUT, **options, "answer": "A"}
    questions.add_exam("exam/law", question)
    return HeldOutQuestions.from_rows(questions.rows())


@pytest.fixture
def screener():
    return Screener(ScreenSettings(), held_out())


def screen(screener, question=QUESTION, answer=ANSWER, quote=QUOTE, title=TITLE, text=TEXT, **more):
    content = json.dumps({"question": question, "answer": answer, "quote": quote})
    fields = {"task": "qa", "document": "d", "prompts": prompts(), **more}
    return screener.screen(Reply(content, "stop"), Asked(title=title, text=text, **fields))


def test_what_is_right_passes_and_its_span_is_the_quote(screener):
    start, end = screen(screener).span
    assert TEXT[start:end] == QUOTE + "。"


OTHER = "《企业国有资产法》规定期限是多久？"
REJECTED = {
    "prompt echo": {"answer": "问题单独阅读也能看懂：写出所问的法规、文件、企业或机构的全称。"},
    "answer repeats the question": {"answer": QUESTION},
    "wrong language": {"answer": "The agency under the State Council performs the duties."},
    "refers to the text": {"answer": "根据给定内容，由机构履行。"},
    "question does not stand alone": {"question": "该法规定由谁履行出资人职责？"},
    "quote is not in the text": {"quote": "地方人民政府履行出资人职责"},
    "ungrounded": {"answer": "由国务院国有资产监督管理机构在60日内履行。"},
    "ungrounded question": {"question": "《企业国有资产法》第九十九条规定了什么？"},
    "holds a question of an exam or test set": {
        "question": f"《企业国有资产法》：{HELD_OUT}？国资委、财政部、法院还是工会",
        "text": TEXT + "国资委、财政部、法院还是工会",
    },
}


@pytest.mark.parametrize("rule", REJECTED)
def test_each_screen_rejects_by_its_name(screener, rule):
    with pytest.raises(Rejected) as rejected:
        screen(screener, **REJECTED[rule])
    assert rejected.value.rule == rule


REFERRING = [
    "文中提到由谁履行？",
    "本文规定由谁履行？",
    "所给材料的内容是什么？",
    "材料中由谁履行？",
]


@pytest.mark.parametrize("question", REFERRING, ids=range(len(REFERRING)))
def test_a_question_that_only_the_reader_of_the_passage_understands(screener, question):
    with pytest.raises(Rejected, match="refers to the text"):
        screen(screener, question="《企业国有资产法》" + question)


def test_the_second_of_two_similar_questions_of_a_document_goes(screener):
    screen(screener)
    with pytest.raises(Rejected, match="repeats a question of its document"):
        screen(screener, question=QUESTION.replace("？", "呢？"))
    screen(screener, document="another")
    screen(screener, question=OTHER, answer="为30日。", quote="期限为30日")


def test_standing_alone_may_be_left_to_the_reviewers():
    screener = Screener(ScreenSettings(standalone=False), HeldOutQuestions())
    assert screen(screener, question="由谁履行出资人职责？")


def test_the_tail_of_a_title_names_nothing(screener):
    about = {"title": "白灼虾的做法", "text": "水开后放入虾，大火煮2分钟。", "quote": "煮2分钟"}
    assert screen(screener, question="白灼虾要煮多久？", answer="煮2分钟。", **about)
    for question in ("虾的做法里要煮多久？", "要煮多久？"):
        with pytest.raises(Rejected, match="question does not stand alone"):
            screen(screener, question=question, answer="煮2分钟。", **about)


def test_english(screener):
    asked = {"title": "Telecom Holdings Annual Report 2021", "prompts": prompts("en")}
    asked["text"] = "Telecom Holdings paid a dividend of 12 million yuan in May 2021."
    question = "What dividend did Telecom Holdings pay in 2021?"
    right = {"quote": asked["text"], "answer": "It paid 12 million yuan.", **asked}
    assert screen(screener, question=question, **right)
    with pytest.raises(Rejected, match="question does not stand alone"):
        screen(screener, question="What dividend did the company pay?", **right)
    with pytest.raises(Rejected, match="wrong language"):
        screen(screener, question=question, **{**right, "answer": "支付了12百万元股息。"})
    with pytest.raises(Rejected, match="refers to the text"):
        screen(screener, question=question, **{**right, "answer": "The passage says 12 million."})
