"""Records of people become items and decisions, or a rejection by name; edits keep the original."""

import json

import pytest

from soaes.data.annotation import imports
from soaes.data.curation.document import Rejection
from tests.helpers.office import xlsx

ROW = {"question": "何时施行？", "answer": "2024年施行。", "task": "report", "annotator": "甲"}


def read(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(imports.read(path, f"annotation/{name}"))


def read_json(tmp_path, *records):
    return read(tmp_path, "a.jsonl", "\n".join(map(json.dumps, records)))


def said(imported):
    return [(each["reviewer"], each["verdict"]) for each in imported.decisions]


def csv(rows):
    return "\n".join(",".join(row) for row in rows)


TABLE = [["问题", "答案", "任务", "标注人", "结论"], ["何时施行？", "2024年", "报告", "甲", "通过"]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_csv_in_any_encoding(tmp_path, encoding):
    (imported,) = read(tmp_path, "a.csv", csv(TABLE).encode(encoding))
    item = imported.item
    assert (item["question"], item["answer"], item["task"]) == ("何时施行？", "2024年", "report")
    assert item["origin"] == "annotation/a.csv:2" and said(imported) == [("甲", "accept")]


def test_xlsx(tmp_path):
    (imported,) = read(tmp_path, "a.xlsx", xlsx(Sheet1=TABLE))
    assert imported.item["question"] == "何时施行？" and said(imported) == [("甲", "accept")]


def test_what_was_edited_keeps_its_original(tmp_path):
    edited = {**ROW, "original_answer": "2023年施行。", "time": "2026-01-31T16:00:00+08:00"}
    (imported,) = read_json(tmp_path, edited)
    assert imported.item["answer"] == "2023年施行。"
    (decision,) = imported.decisions
    assert (decision["verdict"], decision["answer"]) == ("edit", "2024年施行。")
    assert decision["time"] == "2026-01-31T08:00:00Z"


def test_a_quote_becomes_the_span(tmp_path):
    row = {**ROW, "context": "前文。本法自2024年起施行。", "quote": "自2024年起"}
    (imported,) = read_json(tmp_path, row)
    start, end = imported.item["span"]
    assert imported.item["document"]["text"][start:end] == "自2024年起"


def test_dialogues_of_one_question(tmp_path):
    turns = [{"from": "human", "value": "问？"}, {"from": "gpt", "value": "答。"}]
    alpaca = {"instruction": "问？", "input": "", "output": "答。"}
    several = {"conversations": turns + turns}
    one, same, rejection = read_json(tmp_path, {"conversations": turns}, alpaca, several)
    assert one.item["question"] == same.item["question"] == "问？"
    assert rejection.reason == "not one question with its answer"


def test_label_studio(tmp_path):
    def annotation(by, *results, **more):
        return {"completed_by": by, "result": list(results), **more}

    choice = {"from_name": "verdict", "value": {"choices": ["reject"]}}
    text = {"from_name": "edited_answer", "value": {"text": ["2025年施行。"]}}
    task = {
        "id": 7,
        "data": {"question": "何时施行？", "answer": "2024年施行。", "text": "原文"},
        "annotations": [
            annotation({"email": "a@b.c"}, text, lead_time=12.5),
            annotation(3, choice, created_at="2026-01-31T08:00:00.123Z"),
            annotation(3, was_cancelled=True),
        ],
    }
    (imported,) = read(tmp_path, "a.json", json.dumps([task]))
    assert imported.item["answer"] == "2024年施行。" and imported.item["document"]["text"] == "原文"
    assert said(imported) == [("a@b.c", "edit"), ("3", "reject"), ("3 (2)", "skip")]
    first, second, _ = imported.decisions
    assert (first["answer"], first["seconds"], first["second"]) == ("2025年施行。", 12.5, False)
    assert second["time"] == "2026-01-31T08:00:00Z" and second["second"]


ARGILLA = {
    "by user": [
        {"user_id": "u1", "status": "submitted", "values": {"quality": {"value": "接受"}}},
        {"user_id": "u2", "status": "discarded"},
        {"user_id": "u3", "status": "submitted", "values": {"answer": {"value": "改"}}},
    ],
    "by question": {
        "quality": [{"user_id": "u1", "value": "yes"}, {"user_id": "u2", "value": "no"}],
        "answer": [{"user_id": "u3", "value": "改", "status": "submitted"}],
    },
}


@pytest.mark.parametrize("form", ARGILLA)
def test_argilla(tmp_path, form):
    fields = {"question": "何时施行？", "answer": "2024年施行。"}
    record = {"id": "1", "fields": fields, "metadata": {"task": "qa"}, "responses": ARGILLA[form]}
    (imported,) = read_json(tmp_path, record)
    assert said(imported) == [("u1", "accept"), ("u2", "reject"), ("u3", "edit")]
    assert imported.decisions[2]["answer"] == "改"


REJECTED = {
    "no question": {"answer": "答。"},
    "no answer": {"question": "问？", "answer": " "},
    "the task is neither qa nor report": {**ROW, "task": "poem"},
    "unknown verdict": {**ROW, "verdict": "maybe"},
    "broken characters": {**ROW, "answer": "\ud800"},
}


@pytest.mark.parametrize("reason", REJECTED)
def test_a_record_that_cannot_be_used_is_named_and_stops_nothing(tmp_path, reason):
    first, second = read_json(tmp_path, REJECTED[reason], ROW)
    assert isinstance(first, Rejection) and first.reason == reason
    assert first.source == "annotation/a.jsonl:1" and second.item["question"] == ROW["question"]


FILES = {
    "format not known": ("a.pdf", b"%PDF"),
    "broken workbook": ("a.xlsx", b"PK\x03\x04"),
    "broken JSON": ("a.jsonl", b"{"),
}


@pytest.mark.parametrize("reason", FILES)
def test_a_file_that_cannot_be_read_is_named(tmp_path, reason):
    rejections = read(tmp_path, *FILES[reason])
    assert rejections and all(isinstance(each, Rejection) for each in rejections)
    if reason != "broken workbook":
        assert rejections[0].reason == reason


NO_TEXT = {
    "false": (False, "reject"),
    "true": (True, "accept"),
    "one word": (["reject"], "reject"),
    "two words": (["reject", "accept"], None),
    "an object": ({"value": "reject"}, None),
}


@pytest.mark.parametrize("kind", NO_TEXT)
def test_a_verdict_that_is_no_text_does_not_pass_for_none(tmp_path, kind):
    verdict, expected = NO_TEXT[kind]
    (record,) = read_json(tmp_path, {**ROW, "verdict": verdict})
    if expected:
        assert said(record) == [("甲", expected)]
    else:
        assert record.reason == "unknown verdict"


CHOSEN = {
    "one is named verdict": ({"verdict": "reject", "fluent": "yes"}, "reject"),
    "all agree": ({"is_answer_correct": "no", "useful": "no"}, "reject"),
    "they differ": ({"correct": "no", "fluent": "yes"}, "several verdicts"),
    "no verdict": ({"quality": "错的"}, "unknown verdict"),
}


@pytest.mark.parametrize("tool", ["argilla", "label studio"])
@pytest.mark.parametrize("case", CHOSEN)
def test_no_choice_overrides_a_rejection_or_is_left_out(tmp_path, case, tool):
    values, expected = CHOSEN[case]
    original = {"question": "何时施行？", "answer": "2024年施行。"}
    if tool == "argilla":
        response = {"user_id": "u", "status": "submitted", "values": values}
        record = {"fields": original, "responses": [response]}
    else:
        result = [{"from_name": name, "value": {"choices": [values[name]]}} for name in values]
        record = {"data": original, "annotations": [{"completed_by": "u", "result": result}]}
    (read_record,) = read_json(tmp_path, record)
    if isinstance(read_record, Rejection):
        assert read_record.reason == expected
    else:
        assert said(read_record) == [("u", expected)]


MISSHAPEN = {
    "annotations": {"data": ROW, "annotations": "x"},
    "results": {"data": ROW, "annotations": [{"result": ["x"]}]},
    "responses": {"fields": ROW, "responses": "x"},
    "answers": {"fields": ROW, "responses": {"quality": ["x"]}},
}


@pytest.mark.parametrize("part", MISSHAPEN)
def test_a_misshapen_export_of_another_tool_is_named_and_stops_nothing(tmp_path, part):
    first, second = read_json(tmp_path, MISSHAPEN[part], ROW)
    assert first.reason == "not an export of Label Studio or Argilla"
    assert said(second) == [("甲", "accept")]


def test_whole_numbers_of_a_workbook_have_no_point(tmp_path):
    (imported,) = read_json(tmp_path, {**ROW, "answer": 30.0})
    assert imported.item["answer"] == "30"
