"""What people accept becomes stage 2; families stay whole, and nothing is silently lost."""

import json
import random
from collections import Counter

import pytest

from soaes.data.annotation import item as contract
from soaes.data.annotation.settings import AdoptionSettings
from soaes.data.curation import sources
from soaes.data.curation.decontamination import HELD_OUT
from soaes.data.curation.document import SourceDocument, StepOutput, curated
from soaes.data.jsonl import read_jsonl, write_jsonl
from soaes.pipeline.store import write_json
from soaes.stages import annotation
from tests.data.annotation.test_item import decision

NUM_DOCUMENTS = 40


def text(number):
    """A text of its own; each tenth one is nearly the one before it."""
    rng = random.Random(number - (number % 10 == 1))
    return "".join(map(chr, rng.choices(range(0x4E00, 0x9F00), k=300))) + f"第{number}号。"


def items():
    """Five questions about each document, and a report about every other."""
    for number in range(NUM_DOCUMENTS):
        source = f"corpus/laws/{number}.txt"
        record = curated("corpus", source, SourceDocument(text(number), source))
        document = {"id": record["id"], "title": "", "source": source, "offset": 0}
        for index in range(6 if number % 2 else 5):
            task = "report" if index == 5 else "qa"
            question = f"第{number}号第{index}问？"
            yield contract.review_item(
                "qa",
                task=task,
                question=question,
                answer=f"答{number}-{index}",
                document={**document, "text": text(number)},
                span=(0, 9),
                origin="call",
                model="m",
            )


@pytest.fixture(scope="module")
def select(tmp_path_factory):
    folder = tmp_path_factory.mktemp("select")
    with StepOutput("select", folder) as output:
        for number in range(NUM_DOCUMENTS):
            source = f"corpus/laws/{number}.txt"
            document = curated("corpus", source, SourceDocument(text(number), source))
            output.account.take(document)
            output.keep(document)
    return folder


def gather(root, out):
    digest = sources.digest(root, kinds=(sources.ANNOTATION,))
    annotation.annotated(digest, root=str(root), out=out)
    return out


def adopt(tmp_path, select, records, decisions, held_out=(), name="adopt", **settings):
    annotated = tmp_path / f"annotated-{name}"
    contract.write_export(annotated, records, decisions)
    write_jsonl(tmp_path / "held" / HELD_OUT, held_out)
    out = tmp_path / name
    adoption = AdoptionSettings(**settings)
    annotation.adopt(annotated, select, tmp_path / "held", adoption=adoption, out=out)
    return out


def splits(out):
    return {split: read_jsonl(out / "qa" / f"{split}.jsonl") for split in annotation.SPLITS}


def card(out):
    return json.loads((out / "card.json").read_text("utf-8"))


def rules(out):
    return Counter(drop["rule"] for drop in read_jsonl(out / "drops.jsonl"))


def test_an_export_comes_through_to_the_byte_and_imports_stand_beside_it(tmp_path):
    root = tmp_path / "root"
    records = list(items())
    decisions = [decision(item) for item in records[::2]]
    contract.write_export(root / "annotation" / "first", records, decisions)
    out = gather(root, tmp_path / "out")
    for name in (contract.ITEMS, contract.DECISIONS, contract.ACCOUNT):
        exported = root / "annotation" / "first" / name
        assert (out / name).read_bytes() == exported.read_bytes()
    second = decision(records[1], "乙")
    contract.write_export(root / "annotation" / "second", records[:3], [decisions[0], second])
    row = {"question": "问？", "answer": "答。", "annotator": "甲"}
    write_jsonl(root / "annotation" / "experts.jsonl", [row, row, {"question": "问"}])
    merged = contract.read_export(gather(root, tmp_path / "merged"))
    assert len(merged.items) == len(records) + 1 and len(merged.decisions) == len(decisions) + 2
    assert rules(tmp_path / "merged") == {"exact duplicate": 1, "no answer": 1}


def test_a_persons_last_word_counts_and_empty_folders_are_refused(tmp_path):
    record = next(items())
    root = tmp_path / "root"
    for name, verdict, day in (("a", "accept", 2), ("b", "reject", 1)):
        said = {**decision(record, verdict=verdict), "time": f"2026-02-0{day}T08:00:00Z"}
        contract.write_export(root / "annotation" / name, [record], [said])
    out = gather(root, tmp_path / "out")
    assert [each["verdict"] for each in contract.read_export(out).decisions] == ["accept"]
    assert json.loads((out / "metrics.json").read_text("utf-8"))["num_replaced"] == 1
    same_time = {**said, "verdict": "accept"}
    contract.write_export(root / "annotation" / "a", [record], [same_time])
    with pytest.raises(ValueError, match=r"annotation/b: 甲 decided otherwise on .* both at 2026-"):
        gather(root, tmp_path / "contradicting")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"annotation: no item \(it is empty\)"):
        gather(tmp_path / "empty", tmp_path / "none")


def test_accepted_items_are_split_by_families_and_keep_who_decided(tmp_path, select):
    records = list(items())
    out = adopt(tmp_path, select, records, [decision(item) for item in records])
    parts = splits(out)
    sizes = {split: Counter(row["task"] for row in rows) for split, rows in parts.items()}
    for task, total in (("qa", 200), ("report", 20)):
        assert sizes["train"][task] == pytest.approx(0.8 * total, abs=0.06 * total)
        assert all(sizes[split][task] >= 0.05 * total for split in ("dev", "test"))
    family_of = {f"corpus/laws/{n}.txt": n - (n % 10 == 1) for n in range(NUM_DOCUMENTS)}
    in_split = {
        split: {family_of[row["annotation"]["source"]] for row in rows}
        for split, rows in parts.items()
    }
    assert sum(map(len, in_split.values())) == len(set(family_of.values())) == card(out)["families"]
    row = parts["train"][0]
    assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"]
    kept = row["annotation"]
    assert kept["reviewers"] == ["甲"] and kept["times"] == ["2026-01-31T08:00:00Z"]
    assert kept["span"] == [0, 9] and kept["origin"] == "call" and kept["document"]
    again = adopt(tmp_path, select, records[::-1], [decision(item) for item in records], name="b")
    assert splits(again) == parts
    page = (again / "card.md").read_text("utf-8")
    assert "no item was decided on by two people" in page and "None" not in page


def test_what_is_not_adopted_is_counted_by_name(tmp_path, select):
    records = list(items())
    decisions = [decision(item) for item in records[7:]]
    decisions += [decision(records[0], verdict="reject", reason="错误")]
    decisions += [decision(records[1], verdict="skip"), decision(records[2])]
    decisions += [decision(records[2], "乙", verdict="reject", second=True)]
    decisions += [decision(records[3], verdict="edit", question=records[9]["question"])]
    edit = {"verdict": "edit", "question": "改过的问题？", "answer": "改过的答案"}
    decisions += [decision(records[4], "乙", **edit, second=True), decision(records[4])]
    decisions += [
        decision(records[5], verdict="edit", question="哪个机构履行国家出资企业出资人职责")
    ]
    stem = "哪个机构履行国家出资企业出资人职责"
    held_out = [{"split": "exam/law", "stem": stem, "options": []}]
    out = adopt(tmp_path, select, records, decisions, held_out)
    assert rules(out) == {
        "rejected": 1,
        "nobody decided": 1,
        "everyone skipped it": 1,
        "reviewers disagree": 1,
        "the same question is adopted already": 1,
        "holds a question of exam/law": 1,
    }
    rows = [row for part in splits(out).values() for row in part]
    assert len(rows) + 6 == len(records) == card(out)["items"]
    (edited,) = [row for row in rows if row["annotation"]["item"] == records[4]["id"]]
    assert [turn["content"] for turn in edited["messages"]] == ["改过的问题？", "改过的答案"]
    assert edited["annotation"]["verdicts"] == ["accept", "edit"]
    found = card(out)
    assert found["contaminated"] == 1 and found["reasons"] == {"错误": 1, "none given": 1}
    assert found["agreement"]["pairs"] == 2 and found["agreement"]["raw"] == 0.5
    assert found["acceptance"]["rejected"] == 1
    assert found["acceptance"]["decided"] == len(records) - 2


def test_labels_and_pairs_among_the_questions_are_left_out_by_name(tmp_path, select):
    records = list(items())
    documents = [records[0]["document"], records[-1]["document"]]
    label = contract.review_item("relevance", document=documents[0], span=(0, 9))
    pair = contract.review_item("near_duplicate", document=documents[0], other=documents[1])
    decisions = [decision(item) for item in records]
    decisions += [decision(item, verdict="yes") for item in (label, pair)]
    out = adopt(tmp_path, select, [*records, label, pair], decisions)
    assert card(out)["adopted"] == len(records) and set(rules(out)) == {
        "a passage's relevance: its export belongs in labels/",
        "a pair of documents: its export belongs in pairs/",
    }


def test_what_was_set_apart_before_the_review_stays_apart(tmp_path, select):
    records = list(items())
    for item in records:
        number = int(item["document"]["source"].rpartition("/")[2].removesuffix(".txt"))
        item["split_hint"] = {0: "test", 1: "test", 2: "dev", 3: "dev"}.get(number % 10, "")
    out = adopt(tmp_path, select, records, [decision(item) for item in records])
    split_of = {
        row["annotation"]["item"]: split for split in splits(out) for row in splits(out)[split]
    }
    assert all(split_of[item["id"]] == (item["split_hint"] or "train") for item in records)
    assert card(out)["in_another_split_than_planned"] == 0


def test_undecided_items_may_train_with_the_errors_that_this_may_bring(tmp_path, select):
    records = list(items())
    decisions = [decision(item) for item in records[:150]]
    decisions[0]["verdict"] = "reject"
    out = adopt(tmp_path, select, records, decisions, undecided="train")
    found, parts = card(out), splits(out)
    undecided = {item["id"] for item in records[150:]}
    apart = [row["annotation"]["item"] for split in ("dev", "test") for row in parts[split]]
    assert undecided.isdisjoint(apart)
    assert found["undecided"]["adopted"] == len(undecided)
    assert 1 / 150 < found["undecided"]["errors_at_most"] < 0.04


FEW = {
    "nothing is accepted": (0, r"nothing can be adopted \(220 x nobody decided\)"),
    "one document": (4, "4 adopted items are about 1 families.*nothing is left for dev, test"),
}


@pytest.mark.parametrize("case", FEW)
def test_too_little_for_three_splits_is_refused(tmp_path, select, case):
    count, message = FEW[case]
    records = list(items())
    with pytest.raises(ValueError, match=message):
        adopt(tmp_path, select, records, [decision(item) for item in records[:count]])


def test_every_persons_record_of_a_question_counts(tmp_path):
    root = tmp_path / "root"
    row = {"question": "问？", "answer": "答。"}
    verdicts = [("甲", "accept"), ("乙", "reject"), ("甲", "accept"), ("甲", "reject")]
    rows = [{**row, "reviewer": name, "verdict": verdict} for name, verdict in verdicts]
    record = next(items())
    contract.write_export(root / "annotation", [record], [decision(record)])
    write_jsonl(root / "annotation" / "experts.jsonl", rows)  # beside an export, and read
    merged = contract.read_export(gather(root, tmp_path / "out"))
    of_row = [each for each in merged.decisions if each["item"] != record["id"]]
    found = {(each["reviewer"], each["verdict"], each["second"]) for each in of_row}
    assert found == {
        ("甲", "accept", False),
        ("乙", "reject", True),
        ("甲 (2)", "reject", True),
    }
    assert rules(tmp_path / "out") == {"exact duplicate": 1}


def test_an_export_that_is_a_link_to_elsewhere_is_refused(tmp_path):
    record = next(items())
    contract.write_export(tmp_path / "elsewhere", [record], [decision(record)])
    folder = tmp_path / "root" / "annotation" / "a"
    folder.mkdir(parents=True)
    (folder / contract.ITEMS).symlink_to(tmp_path / "elsewhere" / contract.ITEMS)
    with pytest.raises(ValueError, match=r"items.jsonl: link to outside the data root"):
        gather(tmp_path / "root", tmp_path / "out")


def reviewed(tmp_path, records, decisions, wrong, more=0):
    """The folder of `annotated` of a review that bounds the errors of what nobody read."""
    root = tmp_path / "root"
    folder = root / "annotation" / "a"
    contract.write_export(folder, records, decisions)
    decided = {each["item"] for each in decisions}
    unread = Counter(item["task"] for item in records if item["id"] not in decided)
    lots = [
        {
            "task": task,
            "unread": count + more,
            "unread_wrong_at_most": wrong / count,
            "confidence": 0.95,
        }
        for task, count in unread.items()
    ]
    write_json(folder / contract.REVIEW, {"sampling": lots})
    return gather(root, tmp_path / "gathered")


def test_the_bound_of_the_review_is_that_of_undecided_items(tmp_path, select):
    records = list(items())
    annotated = reviewed(tmp_path, records, [decision(item) for item in records[:150]], wrong=2)
    write_jsonl(tmp_path / "held" / HELD_OUT, [])
    out, adoption = tmp_path / "adopt", AdoptionSettings(undecided="train")
    annotation.adopt(annotated, select, tmp_path / "held", adoption=adoption, out=out)
    found = card(out)["undecided"]
    assert found["adopted"] == len(records) - 150
    assert found["errors_at_most"] == pytest.approx(4 / found["adopted"], abs=1e-4)
    lots = {(lot["task"], lot["wrong_at_most"], lot["confidence"]) for lot in found["lots"]}
    assert lots == {("qa", 2, 0.95), ("report", 2, 0.95)}


def test_a_bound_of_another_export_is_refused(tmp_path):
    records = list(items())
    with pytest.raises(ValueError, match=r"review.json: says that .* unread, and .* are; export"):
        reviewed(tmp_path, records, [decision(records[0])], wrong=2, more=1)


def test_of_two_equal_questions_the_decided_one_is_adopted(tmp_path, select):
    records = list(items())
    texts = {"task": "qa", "question": "同一问题？"}
    twins = [
        contract.review_item("qa", **texts, answer=each["answer"], document=each["document"])
        for each in (records[0], records[60])
    ]
    undecided, decided = sorted(twins, key=lambda item: item["id"])
    label = contract.review_item("relevance", document=records[0]["document"])
    decisions = [decision(item) for item in [*records, decided]]
    everything = [*records, undecided, decided, label]
    out = adopt(tmp_path, select, everything, decisions, undecided="train")
    rows = [row for part in splits(out).values() for row in part]
    (row,) = [row for row in rows if row["messages"][0]["content"] == "同一问题？"]
    assert row["annotation"]["item"] == decided["id"]
    assert rules(out) == {
        "the same question is adopted already": 1,
        annotation.NO_QUESTIONS["relevance"]: 1,
    }
    assert card(out)["items"] == len(everything) == len(rows) + 2


def test_who_decides_twice_does_not_agree_with_another_person(tmp_path, select):
    records = list(items())
    decisions = [decision(item, second=second) for item in records for second in (False, True)]
    out = adopt(tmp_path, select, records, decisions)
    assert card(out)["agreement"]["pairs"] == 0
