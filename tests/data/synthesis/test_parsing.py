"""Every kind of malformed answer is rejected by its name; what is whole is read."""

import json

import pytest

from soaes.data.synthesis.calls import Reply
from soaes.data.synthesis.parsing import Draft, Rejected, parse
from soaes.data.synthesis.settings import ScreenSettings

FIELDS = {
    "question": "《公司法》何时施行？",
    "answer": "自2024年7月1日起施行。",
    "quote": "自2024年7月1日起施行",
}
GOOD = json.dumps(FIELDS, ensure_ascii=False)


def changed(**fields):
    return json.dumps({**FIELDS, **fields}, ensure_ascii=False)


MALFORMED = {
    "cut off, and whole by chance": (GOOD, "length", "cut off"),
    "cut off": (GOOD[:30], "length", "cut off"),
    "cut off, said to be whole": (GOOD[:-20], "stop", "broken JSON"),
    "content filter": ("", "content_filter", "stopped by a content filter"),
    "a tool": ("", "tool_calls", "called a tool"),
    "no reason": (GOOD, "None", "no finish reason"),
    "another reason": (GOOD, "eos?", "unknown finish reason"),
    "HTTP 400": ("policy", "refused: 400", "refused by the server"),
    "nothing": ("  \n", "stop", "empty"),
    "100 kB": (changed(answer="字" * 100_000), "stop", "too long"),
    "a long answer": (changed(answer="字" * 9000), "stop", "answer too long"),
    "a long question": (changed(question="字" * 301), "stop", "question too long"),
    "thinking": ("<think>先想</think>" + GOOD, "stop", "thinking block"),
    "thinking that holds a list": ("<think>[1]</think>", "stop", "thinking block"),
    "thinking without its start": ("想好了</think>" + GOOD, "stop", "thinking block"),
    "control tokens": (GOOD + "<|im_end|>", "stop", "control tokens"),
    "control tokens within": (changed(answer="好<|im_start|>user"), "stop", "control tokens"),
    "a broken character": (changed(answer="自\ufffd日起"), "stop", "broken characters"),
    "half a character": (GOOD.replace("施行。", "\\ud83d"), "stop", "broken characters"),
    "a refusal": ("抱歉，我无法回答这个问题。", "stop", "refusal"),
    "a refusal in a field": (changed(answer="I'm sorry, but I can't help."), "stop", "refusal"),
    "prose": ("《公司法》自2024年7月1日起施行。", "stop", "no object"),
    "a number": ("42", "stop", "no object"),
    "a list": (f"[{GOOD}]", "stop", "a list instead of an object"),
    "prose before it": ("结果如下：" + GOOD, "stop", "text beside the object"),
    "prose around a fence": (
        f"好的：\n```json\n{GOOD}\n```\n以上。",
        "stop",
        "text beside the object",
    ),
    "two fences": (f"```json\n{GOOD}\n```\n```json\n{GOOD}\n```", "stop", "several objects"),
    "two objects": (f"{GOOD}\n{GOOD}", "stop", "several objects"),
    "broken JSON": ("{}{{", "stop", "text beside the object"),
    "nested too deep": ('{"a": ' + "[" * 30_000 + "]" * 30_000 + "}", "stop", "broken JSON"),
    "no field at all": ("{'''}", "stop", "broken JSON"),
    "a field is missing": (json.dumps({"question": "问？"}), "stop", "a field is missing"),
    "a field is a number": (changed(answer=3), "stop", "a field is no text"),
    "a field is a list": (changed(quote=["a"]), "stop", "a field is no text"),
    "a field stands twice": (GOOD[:-1] + ', "answer": "别的"}', "stop", "a field stands twice"),
    "the example": (changed(question="<question>"), "stop", "empty question"),
    "dots": (changed(answer="……"), "stop", "empty answer"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_answer_is_rejected_by_name(kind):
    content, finish_reason, rule = MALFORMED[kind]
    with pytest.raises(Rejected) as rejected:
        parse(Reply(content, finish_reason), "qa", ScreenSettings())
    assert rejected.value.rule == rule
    assert len(rejected.value.detail) <= 120


def test_there_are_25_kinds_and_more_than_20_names():
    assert len(MALFORMED) >= 25 and len({rule for *_, rule in MALFORMED.values()}) > 20


WHOLE = {
    "plain": GOOD,
    "fence": f"```json\n{GOOD}\n```",
    "line break in a text": GOOD.replace("自2024", "自\n2024", 1),
    "comma at the end": GOOD[:-1] + ",}",
    "a field more": changed(score=5),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_whole_answer_is_read(kind):
    draft = parse(Reply(WHOLE[kind], "stop"), "qa", ScreenSettings())
    assert draft.question == FIELDS["question"] and "7月1日" in draft.answer
    assert draft.quote == FIELDS["quote"]


def test_a_report_keeps_its_lines_needs_no_quote_and_has_a_length():
    record = {"question": "请写报告", "answer": "# 报告\n\n" + "一、概述。\n" * 30}
    draft = parse(Reply(json.dumps(record), "stop"), "report", ScreenSettings())
    assert draft == Draft("请写报告", record["answer"].strip(), "")
    record["answer"] = "短"
    with pytest.raises(Rejected, match="report too short"):
        parse(Reply(json.dumps(record), "stop"), "report", ScreenSettings())
