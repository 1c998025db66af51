"""From passages that are drawn, over what people say of them, to the labels that score."""

import json
from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from soaes.data.annotation import item as contract
from soaes.data.curation import sources
from soaes.data.curation.document import SourceDocument, StepOutput, curated, read_documents
from soaes.data.curation.passages import fingerprint
from soaes.data.curation.settings import DomainSettings, PassageDrawing
from soaes.data.jsonl import read_jsonl, write_jsonl
from soaes.stages import corpus, labelling
from tests.data.annotation.test_item import decision

TOPICS = {"assets": ["国有资产"], "owners": ["国资委"]}
NUMBER = 72
DRAWING = PassageDrawing(TOPICS, number=NUMBER, max_per_document=2, context_chars=300)
ABOUT = ["出资人委派董事", "产权转让应当评估", "企业领导人员的任免", "国有资产归国家所有"]
OTHER = ["蛋糕放进烤箱", "车辆应当靠右行驶", "疫苗应当按时接种", "河流的水质监测"]


def text_of(number):
    """Four passages, no two of which are equal; every fourth document is about the domain."""
    rng = Random(number)
    words = ABOUT if number % 4 == 0 else OTHER
    lines = []
    for part in range(4):
        sentences = (f"{rng.choice(words)}{rng.randrange(10**6)}" for _ in range(14))
        lines.append(f"第{number}号第{part}条 " + "，".join(sentences) + "。")
    return "\n".join(lines)


def write_step(folder, change=lambda number, text: text):
    """Write 80 documents and a general one; `change` gives the text of each, "" for none."""
    with StepOutput("decontaminate", folder) as output:
        for number in range(81):
            kind = "general" if number == 80 else "corpus"
            source = f"{kind}/{'law' if number % 4 == 0 else 'web'}/{number}.md"
            text = change(number, text_of(number))
            if text:
                found = SourceDocument(text, source, title=f"《{number}》")
                document = curated(kind, source, found)
                output.account.take(document)
                output.keep(document)
    return folder


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    return write_step(tmp_path_factory.mktemp("documents"))


@pytest.fixture(scope="module")
def items(documents, tmp_path_factory):
    out = tmp_path_factory.mktemp("drawn")
    labelling.draw_passages(documents, drawing=DRAWING, rubric="# By what\n", out=out)
    assert (out / "rubric.md").read_text("utf-8") == "# By what\n"
    return contract.read_items(out / contract.ITEMS)


def is_about(item):
    return "/law/" in item["document"]["source"]


def decisions_of(items):
    return [decision(item, verdict="yes" if is_about(item) else "no") for item in items]


def passage(item):
    return item["document"]["text"][slice(*item["span"])]


def labels_of(documents, root, out):
    digest = sources.digest(root, kinds=(sources.LABELS,))
    labelling.labels(documents, digest, root=str(root), out=out)
    return read_jsonl(out / "labels.jsonl"), json.loads((out / "account.json").read_text("utf-8"))


def rules(out):
    return Counter(drop["rule"] for drop in read_jsonl(out / "drops.jsonl"))


def test_passages_are_drawn_with_what_a_label_needs(documents, items, tmp_path):
    assert len(items) == NUMBER and {item["kind"] for item in items} == {"relevance"}
    assert max(Counter(item["document"]["id"] for item in items).values()) == 2
    texts = {each["id"]: each["text"] for each in read_documents(documents)}
    for item in items:
        document, (start, end) = item["document"], item["span"]
        whole = texts[document["id"]]
        offset = document["offset"]
        assert document["text"] == whole[offset : offset + len(document["text"])]
        assert passage(item).startswith("第") and end - start < len(document["text"])
        assert document["source"].startswith("corpus/")
    strata = {item["sample"]["stratum"] for item in items}
    assert strata == {"law/none", "law/one", "web/none"}
    assert len({item["sample"]["draw"] for item in items}) == 1
    for stratum, size in (("law", 80), ("web", 240)):
        weights = [
            1 / item["sample"]["probability"]
            for item in items
            if item["sample"]["stratum"].startswith(stratum)
        ]
        assert sum(weights) == pytest.approx(size, rel=0.15)
    labelling.draw_passages(documents, drawing=DRAWING, out=tmp_path)
    assert not (tmp_path / "rubric.md").exists()
    account = json.loads((tmp_path / "account.json").read_text("utf-8"))
    assert account["passages"] == 320
    assert sum(stratum["drawn"] for stratum in account["strata"].values()) == NUMBER
    assert contract.read_items(tmp_path / "items.jsonl") == items


def test_what_people_say_scores_with_the_weight_of_the_draw(documents, items, tmp_path):
    root = tmp_path / "root"
    contract.write_export(root / "labels" / "first", items, decisions_of(items))
    found, account = labels_of(documents, root, tmp_path / "labels")
    assert (account["labels"], account["dropped"]) == (NUMBER, {})
    drawn = {fingerprint(passage(item)).hash: item for item in items}
    for label in found:
        item = drawn[int(label["hash"], 16)]
        assert label["probability"] == item["sample"]["probability"]
        assert label["document"] == item["document"]["id"]
        assert label["label"] == is_about(item)
    assert account["share_relevant"] == pytest.approx(0.25, abs=0.05)
    domain = DomainSettings(topics=TOPICS, tiers={})
    corpus.score(documents, tmp_path / "labels", domain=domain, out=tmp_path / "scored")
    scoring = json.loads((tmp_path / "scored/scoring.json").read_text("utf-8"))
    assert scoring["relevance_by"] == "labels" and scoring["labels_found"] == NUMBER
    judged = read_jsonl(tmp_path / "scored" / corpus.JUDGED)
    weights = sorted(1 / item["sample"]["probability"] for item in items)
    assert sorted(row["weight"] for row in judged) == pytest.approx(weights)
    relevances = {
        each["source"]: each["scores"]["relevance"] for each in read_documents(tmp_path / "scored")
    }
    assert relevances["corpus/law/4.md"] > 0.5 > relevances["corpus/web/5.md"]
    (tmp_path / "again").mkdir()
    drawing = replace(DRAWING, seed=1)
    labelling.draw_passages(tmp_path / "scored", drawing=drawing, out=tmp_path / "again")
    again = contract.read_items(tmp_path / "again/items.jsonl")
    bands = {item["sample"]["stratum"].split("/")[2] for item in again}
    assert len(bands) > 1 and again[0]["sample"]["draw"] != items[0]["sample"]["draw"]


def test_who_disagrees_or_skips_gives_no_label_and_is_counted(documents, items, tmp_path):
    root = tmp_path / "root"
    decisions = decisions_of(items)
    other = "no" if decisions[0]["verdict"] == "yes" else "yes"
    decisions[1]["verdict"] = "skip"
    seconds = [
        decision(items[0], "乙", verdict=other, second=True),
        decision(items[2], "乙", verdict=decisions[2]["verdict"], second=True),
    ]
    pair = contract.review_item(
        "near_duplicate", document=items[0]["document"], other=items[1]["document"]
    )
    contract.write_export(root / "labels" / "a", [*items, pair], [*decisions[:52], *seconds])
    _, account = labels_of(documents, root, tmp_path / "out")
    assert account["dropped"] == {
        "nobody decided": 20,
        "reviewers disagree": 1,
        "everyone skipped it": 1,
        "no passage's relevance": 1,
    }
    assert account["labels"] == 50
    assert (account["agreement"]["pairs"], account["agreement"]["raw"]) == (2, 0.5)
    named = [drop for drop in read_jsonl(tmp_path / "out/drops.jsonl") if drop["detail"]]
    assert {drop["item"] for drop in named} == {items[0]["id"], items[1]["id"]}


def test_a_document_that_changed_loses_its_labels_by_name(documents, items, tmp_path):
    root = tmp_path / "root"
    contract.write_export(root / "labels" / "a", items, decisions_of(items))
    about = Counter(item["document"]["source"] for item in items)
    changed, gone, *_ = (int(source.split("/")[2][:-3]) for source in about)

    def change(number, text):
        return "" if number == gone else text.replace("，", "了，") if number == changed else text

    found, account = labels_of(write_step(tmp_path / "new", change), root, tmp_path / "out")
    numbers = list(about.values())
    assert account["dropped"] == {labelling.CHANGED: numbers[0], labelling.GONE: numbers[1]}
    assert len(found) == NUMBER - sum(numbers[:2])
    drops = read_jsonl(tmp_path / "out/drops.jsonl")
    assert {drop["source"] for drop in drops} == set(list(about)[:2])
    spaced = write_step(tmp_path / "spaced", lambda number, text: text.replace("，", " ,\n"))
    assert len(labels_of(spaced, root, tmp_path / "same")[0]) == NUMBER, "letters are as they were"


def test_files_and_reviews_are_one_set_and_their_contradictions_are_named(
    documents, items, tmp_path
):
    root = tmp_path / "root"
    contract.write_export(root / "labels" / "a", items, decisions_of(items))
    contract.write_export(root / "labels" / "later", items, decisions_of(items))

    def line(item, label, probability):
        letters, value = fingerprint(passage(item))
        source = item["document"]["source"]
        known_by = {"source": source, "letters": letters, "hash": f"{value:016x}"}
        return {**known_by, "label": label, "probability": probability, "family": "mine"}

    first = int(is_about(items[0]))
    wrong = 1 - int(is_about(items[1]))
    lines = [line(items[0], first, 0.5), line(items[0], first, 0.5), line(items[1], wrong, 1)]
    write_jsonl(root / "labels" / "mine.jsonl", lines)
    found, account = labels_of(documents, root, tmp_path / "out")
    assert account["dropped"] == {labelling.CONTRADICTING: 2} and account["labels"] == NUMBER - 1
    letters, value = fingerprint(passage(items[0]))
    (label,) = [each for each in found if each["hash"] == f"{value:016x}"]
    weight = 2 + 1 / items[0]["sample"]["probability"]
    assert label["probability"] == pytest.approx(1 / weight), "once a draw, files being one"
    assert label["family"] == "mine"
    of_document = {
        each["family"] for each in found if each["document"] == items[0]["document"]["id"]
    }
    assert of_document == {"mine"}, "a given family holds for the whole document"


def test_near_duplicates_are_one_family(items, tmp_path):
    root = tmp_path / "root"
    contract.write_export(root / "labels" / "a", items, decisions_of(items))
    twins = [
        number
        for number in range(0, 80, 8)
        if {f"corpus/law/{each}.md" for each in (number, number + 4)}
        <= {item["document"]["source"] for item in items}
    ]

    def change(number, text):
        return f"{text}\n{text_of(number + 4)}" if number in twins else text

    apart = labels_of(write_step(tmp_path / "apart"), root, tmp_path / "a")[1]["families"]
    alike = labels_of(write_step(tmp_path / "alike", change), root, tmp_path / "b")[1]["families"]
    assert twins and alike == apart - len(twins)


def test_labels_that_changed_or_are_none_are_refused(documents, items, tmp_path):
    root = tmp_path / "root"
    contract.write_export(root / "labels" / "a", items[:1], [])
    digest = sources.digest(root, kinds=(sources.LABELS,))
    (root / "labels" / "notes.txt").write_text("many", "utf-8")
    with pytest.raises(ValueError, match="changed since it was planned"):
        labelling.labels(documents, digest, root=str(root), out=tmp_path / "out")
    with pytest.raises(ValueError, match=r"notes.txt:1: no label"):
        labels_of(documents, root, tmp_path / "out")
    (root / "labels" / "notes.txt").unlink()
    (root / "labels" / "link").mkdir()
    (root / "labels" / "link" / "items.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"labels/link/items.jsonl: file cannot be read"):
        labels_of(documents, root, tmp_path / "out")


def test_a_corpus_without_a_passage_is_refused(tmp_path):
    empty = write_step(tmp_path / "empty", lambda number, text: "")
    with pytest.raises(ValueError, match="no document of the corpus has a passage"):
        labelling.draw_passages(empty, drawing=DRAWING, out=tmp_path / "out")


def test_no_labels_are_none(documents, tmp_path):
    (tmp_path / "root").mkdir()
    found, account = labels_of(documents, tmp_path / "root", tmp_path / "out")
    assert found == [] and account["share_relevant"] is None and rules(tmp_path / "out") == {}
