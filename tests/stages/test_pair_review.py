"""From near-duplicates that are drawn, over what people say of them, to how good the drops are."""

import json
from collections import Counter
from random import Random

import pytest

from soaes.data.annotation import item as contract
from soaes.data.curation import sources
from soaes.data.curation.document import SourceDocument, StepOutput, curated
from soaes.data.curation.settings import DeduplicationSettings, PairDrawing
from soaes.pipeline.store import write_json
from soaes.stages import corpus, pair_review
from tests.data.annotation.test_item import decision

NUM_TEXTS = 8


def edited(text, every, offset=0):
    """The text with a letter in so many replaced by one of another script."""
    return "".join(
        chr(0xAC00 + (index + offset) % 9000) if index % every == 7 else letter
        for index, letter in enumerate(text)
    )


@pytest.fixture(scope="module")
def deduplicated(tmp_path_factory):
    """Texts, each with a twin that is dropped and a cousin that is nearly dropped."""
    folder = tmp_path_factory.mktemp("pairs")
    with StepOutput("clean", folder / "clean") as output:
        for number in range(NUM_TEXTS):
            text = "".join(map(chr, Random(number).choices(range(0x5000, 0x9F00), k=2200)))
            versions = [text, edited(text, 100), edited(text, 31, offset=5000)]
            for name, version in zip("abc", versions, strict=True):
                source = f"corpus/{number}{name}.txt"
                document = curated("corpus", source, SourceDocument(version, source))
                output.account.take(document)
                output.keep(document)
    write_json(folder / "clean" / "account.json", {"step": "clean", "earlier": []})
    settings = DeduplicationSettings()
    corpus.deduplicate(folder / "clean", deduplication=settings, out=folder / "deduplicate")
    return folder


def pairs_of(deduplicated, out, **drawing):
    out.mkdir()
    pair_review.draw_pairs(
        deduplicated / "clean",
        deduplicated / "deduplicate",
        deduplication=DeduplicationSettings(),
        drawing=PairDrawing(**drawing),
        out=out,
    )
    return contract.read_items(out / "items.jsonl")


def judged_of(root, out):
    digest = sources.digest(root, kinds=(sources.PAIRS,))
    pair_review.judged_pairs(digest, root=str(root), out=out)
    return json.loads((out / "pairs.json").read_text("utf-8"))


def test_pairs_of_either_fate_are_drawn_and_measure_the_drops(deduplicated, tmp_path):
    drawn = pairs_of(deduplicated, tmp_path / "drawn")
    fates = Counter(item["sample"]["stratum"].split("/")[0] for item in drawn)
    assert fates == {"dropped": NUM_TEXTS, "kept": NUM_TEXTS}
    assert {item["sample"]["probability"] for item in drawn} == {1.0}
    by_fate = {
        fate: [item for item in drawn if item["sample"]["stratum"].startswith(fate)]
        for fate in fates
    }
    for item in by_fate["dropped"]:
        names = {item[side]["source"][-5] for side in ("document", "other")}
        assert names == {"a", "b"} and item["document"]["text"] != item["other"]["text"]
    decisions = [decision(item, verdict="yes") for item in by_fate["dropped"][1:]]
    decisions += [decision(item, verdict="no") for item in by_fate["kept"][2:]]
    decisions += [decision(by_fate["dropped"][0], verdict="no")]
    decisions += [decision(by_fate["kept"][0], verdict="yes")]
    decisions += [decision(by_fate["kept"][1], verdict="skip")]
    contract.write_export(tmp_path / "root" / "pairs" / "a", drawn, decisions)
    report = judged_of(tmp_path / "root", tmp_path / "out")
    assert report["precision"]["value"] == report["precision"]["low"] == 7 / 8
    missed = NUM_TEXTS / 7  # one of the seven on which somebody decided
    assert report["missed"]["value"] == pytest.approx(missed / (missed + 7))
    assert report["missed"]["low"] == pytest.approx(1 / 8)
    assert report["missed"]["high"] == pytest.approx(2 / 9)
    assert report["dropped"] == {"everyone skipped it": 1}
    assert sum(stratum["size"] for stratum in report["strata"].values()) == len(drawn)
    metrics = json.loads((tmp_path / "out/metrics.json").read_text("utf-8"))
    assert metrics["precision"] == 7 / 8 and metrics["decided"] == 15


def test_some_of_many_pairs_stand_for_all(deduplicated, tmp_path):
    drawn = pairs_of(deduplicated, tmp_path / "drawn", number=6)
    weights = Counter()
    for item in drawn:
        weights[item["sample"]["stratum"].split("/")[0]] += 1 / item["sample"]["probability"]
    assert len(drawn) == 6 and weights == pytest.approx({"dropped": 8, "kept": 8})
    contract.write_export(
        tmp_path / "root" / "pairs" / "a", drawn, [decision(item, verdict="yes") for item in drawn]
    )
    report = judged_of(tmp_path / "root", tmp_path / "out")
    assert sum(stratum["size"] for stratum in report["strata"].values()) == 16
    assert report["precision"]["value"] == 1 > report["precision"]["low"]


def test_draws_of_other_documents_are_told(deduplicated, tmp_path, capsys):
    drawn = pairs_of(deduplicated, tmp_path / "drawn")
    root = tmp_path / "root"
    said = [decision(item, verdict="yes") for item in drawn]
    contract.write_export(root / "pairs" / "a", drawn, said)
    assert judged_of(root, tmp_path / "one")["of_several_sizes"] == []
    first = drawn[0]
    sample = {**first["sample"], "draw": "other", "size": 99}
    document = {**first["document"], "text": "文"}
    other = contract.review_item("near_duplicate", document=document, other=document, sample=sample)
    contract.write_export(root / "pairs" / "b", [other], [decision(other, verdict="yes")])
    report = judged_of(root, tmp_path / "two")
    assert report["of_several_sizes"] == [sample["stratum"]]
    assert f"not of the same documents: {sample['stratum']} have" in capsys.readouterr().out


def test_of_every_stratum_a_pair_is_drawn(deduplicated, tmp_path):
    drawn = pairs_of(deduplicated, tmp_path / "drawn", number=1)
    strata = json.loads((tmp_path / "drawn" / "account.json").read_text("utf-8"))["strata"]
    assert len(strata) > 1 and all(stratum["drawn"] for stratum in strata.values())
    assert {item["sample"]["stratum"] for item in drawn} == set(strata)


def test_pairs_that_cannot_be_shown_or_were_not_drawn_are_named(deduplicated, tmp_path):
    with pytest.raises(ValueError, match="no two documents are similar enough.*lowest=0.99"):
        pairs_of(deduplicated, tmp_path / "none", lowest=0.99, max_chars=2000)
    out = tmp_path / "short"
    assert len(pairs_of(deduplicated, out, max_chars=2200)) == 2 * NUM_TEXTS
    root = tmp_path / "root"
    document = {"id": "a", "title": "", "source": "a", "offset": 0, "text": "文"}
    pair = contract.review_item("near_duplicate", document=document, other=document)
    contract.write_export(root / "pairs" / "a", [pair], [decision(pair, verdict="yes")])
    with pytest.raises(ValueError, match="no pair that data.draw_pairs drew"):
        judged_of(root, tmp_path / "out")
    (root / "pairs" / "notes.md").write_text("", "utf-8")
    with pytest.raises(ValueError, match=r"pairs/notes.md: is no file of an export"):
        judged_of(root, tmp_path / "out")
