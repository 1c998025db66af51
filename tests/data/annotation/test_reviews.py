"""Exports of several reviews are one: the last word of each person, one weight for each draw."""

import pytest

from soaes.data.annotation import item as contract
from soaes.data.annotation.reviews import combined, folders_of, gather
from soaes.data.annotation.verdicts import DISAGREED, NOBODY, SKIPPED, common, pairs
from tests.data.annotation.test_item import TEXT, decision, document


def passage(draw="a", probability=0.5, span=(0, 4)):
    sample = {"draw": draw, "stratum": "laws/one", "size": 8, "probability": probability}
    return contract.review_item("relevance", document=document(), span=span, sample=sample)


def word(each):
    return each["verdict"]


def test_files_belong_to_exports_by_their_folder():
    names = ["labels/a.jsonl", "labels/r/items.jsonl", "labels/r/decisions.jsonl"]
    names += ["labels/r/review.json", "labels/r/more.jsonl"]
    assert folders_of(names) == (["labels/r"], ["labels/a.jsonl", "labels/r/more.jsonl"])


def test_an_item_counts_once_for_each_draw_and_not_for_each_export(tmp_path):
    item, again, other = passage(), passage("b", 0.25), passage(span=(4, 8))
    said = decision(item, verdict="yes")
    changed = {**said, "verdict": "no", "time": "2026-02-01T08:00:00Z"}
    contract.write_export(tmp_path / "first", [item, other], [said])
    contract.write_export(tmp_path / "second", [item, other], [changed, decision(item, "乙")])
    contract.write_export(tmp_path / "third", [again], [])
    (tmp_path / "third" / "decisions.jsonl").unlink()
    folders = ["second", "first", "third"]
    with pytest.raises(ValueError, match="verdict=accept: must be one of yes, no, skip"):
        gather(tmp_path, folders)
    contract.write_export(tmp_path / "second", [item, other], [changed])
    reviewed = gather(tmp_path, folders)
    assert reviewed.decisions == {item["id"]: [changed], other["id"]: []}
    assert reviewed.num_replaced == 1
    assert reviewed.probability(item["id"]) == pytest.approx(1 / (2 + 4))
    assert reviewed.probability(other["id"]) == 0.5
    assert combined([]) == 1 and combined([0.075758]) == 0.075758


def test_an_export_that_was_edited_weighs_nothing_otherwise(tmp_path):
    item, other = passage(), passage(span=(4, 8))
    contract.write_export(tmp_path / "first", [item, other], [])
    contract.write_export(tmp_path / "second", [passage(probability=0.9)], [])
    with pytest.raises(ValueError, match=r"probability=0.9 of item .*: another export .* says 0.5"):
        gather(tmp_path, ["first", "second"])
    del other["sample"]
    contract.write_export(tmp_path / "first", [item, other], [])
    with pytest.raises(ValueError, match=f"item {other['id']} has no sample, and others"):
        gather(tmp_path, ["first"])
    contract.write_export(tmp_path / "first", [other], [])
    assert gather(tmp_path, ["first"]).probability(other["id"]) == 1, "as of other tools"


def test_what_people_say_comes_to_one_word_or_to_a_reason():
    item = passage()
    yes, no, skip = (decision(item, verdict=word) for word in ("yes", "no", "skip"))
    second = decision(item, "乙", verdict="no", second=True)
    assert common([], word) == NOBODY and common([skip], word) == SKIPPED
    assert common([yes, skip], word) == "yes" and common([no, second], word) == "no"
    assert common([yes, second], word) == DISAGREED
    assert common([yes, {**no, "second": True}], word) == DISAGREED, "with oneself"
    own = {**no, "second": True}
    assert pairs([[second, yes], [yes, own], [skip, second], []], word) == [("yes", "no")]


def test_how_an_item_was_drawn_survives_and_is_no_part_of_its_id(tmp_path):
    item = passage(probability=0.1)
    assert passage("b", 0.9)["id"] == item["id"] and passage(span=(4, 8))["id"] != item["id"]
    shuffled = {**item, "sample": dict(reversed(item["sample"].items()))}
    contract.write_export(tmp_path / "a", [item], [])
    contract.write_export(tmp_path / "b", [shuffled], [])
    assert (tmp_path / "a/items.jsonl").read_bytes() == (tmp_path / "b/items.jsonl").read_bytes()
    assert contract.read_items(tmp_path / "a/items.jsonl") == [item]


SLIPS = {
    "zero": ({"probability": 0}, r"probability=0: must lie in \(0, 1\]"),
    "text": ({"probability": "0.5"}, "probability=0.5"),
    "stratum": ({"stratum": 1}, "stratum must be str"),
    "size": ({"size": 0}, "size=0: must be a whole number"),
    "unknown": ({"extra": 1}, "unknown field extra"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_sample_that_is_none_is_refused_by_name(slip):
    change, message = SLIPS[slip]
    item = passage()
    item["sample"] |= change
    with pytest.raises(ValueError, match=f"items:1: sample: .*{message}"):
        contract.check_item(item, "items:1")
    question = contract.review_item("qa", document=document(TEXT), sample=passage()["sample"])
    with pytest.raises(ValueError, match="`sample` belongs to relevance"):
        contract.check_item(question, "items:1")
