"""Laws of the item contract: ids follow from content, and an export survives a round trip."""

import json
import random

import pytest

from soaes.data.annotation import item as contract

TEXT = "第一条 为了加强国有资产管理，制定本条例。\u2028第二条 本条例自2020年1月1日起施行。"


def document(text=TEXT, number=0):
    source = f"corpus/laws/{number}.txt"
    return {"id": f"d{number}", "title": "条例", "source": source, "offset": 0, "text": text}


def question(number=0, **fields):
    fields.setdefault("task", "qa")
    fields.setdefault("answer", "答案\n第二行")
    fields.setdefault("span", (0, 4))
    return contract.review_item("qa", document=document(), question=f"问题{number}？", **fields)


def decision(about, reviewer="甲", **fields):
    record = {
        "item": about["id"],
        "reviewer": reviewer,
        "verdict": "accept",
        "reason": "",
        "question": about["question"],
        "answer": about["answer"],
        "seconds": 1.5,
        "time": "2026-01-31T08:00:00Z",
        "second": False,
    }
    return {**record, **fields}


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def export():
    pair = contract.review_item(
        "near_duplicate", document=document(), other=document(TEXT + "。", 1)
    )
    items = [*(question(number) for number in range(20)), pair]
    decisions = [decision(item) for item in items[:9]]
    decisions += [decision(item, "乙", verdict="edit", answer="改") for item in items[:3]]
    decisions += [decision(items[0], "甲", second=True), decision(pair, verdict="yes")]
    return items, decisions


def test_export_import_export_is_equal_to_the_byte_in_any_order(tmp_path):
    items, decisions = export()
    contract.write_export(tmp_path / "a", items, decisions)
    again = contract.read_export(tmp_path / "a")
    rng = random.Random(0)
    for records in again:
        rng.shuffle(records)
    reversed_fields = [dict(reversed(record.items())) for record in again.decisions]
    contract.write_export(tmp_path / "b", again.items, reversed_fields)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    account = json.loads(content(tmp_path / "b")["account.json"])
    assert account["decisions_by_reviewer"] == {"乙": 3, "甲": 11}
    assert (account["items"], account["items_decided"]) == (21, 10)


def test_the_id_follows_from_the_content_and_from_nothing_else():
    first = question()
    assert question(split_hint="dev", origin="x", model="y")["id"] == first["id"]
    assert len(first["id"]) == 16
    changed = [question(1), question(answer="别")]
    changed += [question(span=(0, 5)), question(task="report")]
    assert len({first["id"], *(item["id"] for item in changed)}) == 5


ITEM_SLIPS = {
    "missing": (lambda item: item.pop("origin"), "origin missing"),
    "unknown": (lambda item: item.update(extra=1), "unknown field extra"),
    "kind": (lambda item: item.update(kind="quiz"), "kind=quiz: must be one of"),
    "type": (lambda item: item.update(question=3), "question must be str, and is int"),
    "span": (lambda item: item.update(span=[0, 99]), r"span=\[0, 99\]: must be"),
    "empty span": (lambda item: item.update(span=[4, 4]), "span"),
    "other": (lambda item: item.update(other=document()), "belongs to a near_duplicate"),
    "edited": (lambda item: item.update(answer="改"), "an item is never edited"),
    "document": (lambda item: item.update(document="text"), "must be an object"),
    "half a character": (
        lambda item: item.update(answer="\ud800"),
        "answer holds half a character",
    ),
    "offset": (lambda item: item["document"].update(offset=-1), "offset=-1"),
}


@pytest.mark.parametrize("slip", ITEM_SLIPS)
def test_a_line_that_is_no_item_is_refused_by_name(tmp_path, slip):
    change, message = ITEM_SLIPS[slip]
    item = question()
    change(item)
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps(question(1)) + "\n" + json.dumps(item) + "\n", "utf-8")
    with pytest.raises(ValueError, match=rf"items.jsonl:2.*{message}"):
        contract.read_items(path)


def test_a_line_of_brackets_is_no_item(tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text("[" * 200_000, "utf-8")
    with pytest.raises(ValueError, match=r"items.jsonl:1: not JSON"):
        contract.read_items(path)


DECISION_SLIPS = {
    "verdict": ({"verdict": "yes"}, "verdict=yes: must be one of accept"),
    "item": ({"item": "0" * 16}, "has no such item"),
    "seconds": ({"seconds": -1}, "seconds=-1"),
    "endless": ({"seconds": 10**400}, "seconds=1000"),
    "time": ({"time": "2026-01-31T08:00:00+08:00"}, "must be UTC"),
    "reviewer": ({"reviewer": " "}, "reviewer is empty"),
    "second": ({"second": 1}, "second must be bool"),
    "twice": ({}, "decided twice"),
}


@pytest.mark.parametrize("slip", DECISION_SLIPS)
def test_a_line_that_is_no_decision_is_refused_by_name(tmp_path, slip):
    fields, message = DECISION_SLIPS[slip]
    item = question()
    contract.write_export(tmp_path, [item], [decision(item)])
    with open(tmp_path / "decisions.jsonl", "a", encoding="utf-8") as handle:
        handle.write(json.dumps(decision(item, **fields)) + "\n")
    with pytest.raises(ValueError, match=rf"decisions.jsonl:2.*{message}"):
        contract.read_export(tmp_path)
