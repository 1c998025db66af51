"""The page's record: every number of the steps, and samples of all that was taken."""

import json
import re

import pytest
import yaml

from soaes.data.curation.near_duplicates import RULES
from soaes.data.curation.settings import CLEANING_RULES
from soaes.data.readers.reader_process import CRASHED, HUNG
from soaes.pipeline.compose import CONF
from soaes.pipeline.store import read_json
from soaes.report.curation import page, record, steps, survey
from soaes.report.page.single_file import ASSETS
from tests.helpers.curations import QUESTION, toy_curation
from tests.helpers.reports import build

SOAES = CONF.parent / "soaes"
HOSTILE = "<b>标题</b>"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_curation(tmp_path_factory.mktemp("curation"), HOSTILE)


@pytest.fixture(scope="module")
def curation(toy):
    return record.gather(*toy)


def by_name(items, key, value):
    (item,) = [item for item in items if item[key] == value]
    return item


def test_what_goes_out_of_a_step_comes_into_the_next(curation):
    shown = curation.record["steps"]
    assert [step["step"] for step in shown] == list(steps.STEPS)
    for before, after in zip(shown, shown[1:], strict=False):
        for unit in ("documents", "characters", "tokens"):
            assert before[unit]["out"] == after[unit]["in"]
    assert shown[0]["documents"]["in"] == 6 and shown[-1]["documents"]["out"] == 1
    assert shown[0]["tokens"]["in"] == round(shown[0]["characters"]["in"] / 1.75)


def test_a_rule_that_changed_texts_has_samples_with_marks(curation):
    clean = by_name(curation.record["steps"], "step", "clean")
    rule = by_name(clean["rules"], "rule", "spaces between Han")
    (sample,) = rule["samples"]
    assert sample["source"] == "corpus/web/page.txt"
    assert [" ", True] in map(list, sample["before"])
    assert not any(differs for _, differs in sample["after"])
    assert clean["idle"] == ["page numbers"]


def test_every_drop_is_listed_under_its_rule(curation):
    drops = {(each["step"], each["rule"]): each for each in curation.blocks["drops"]}
    assert set(drops) == {
        ("read", "file type not read"),
        ("read", "empty file"),
        ("deduplicate", "near-duplicate"),
        ("deduplicate", "exact duplicate"),
        ("decontaminate", "holds a question of exam/toy"),
        ("select", "below the relevance threshold"),
    }
    near = drops["deduplicate", "near-duplicate"]["shown"][0]
    assert near["keeper"] == "corpus/laws/other.txt" and near["similarity"] > 0.8
    assert near["document"]["text"].startswith(HOSTILE)
    low = drops["select", "below the relevance threshold"]
    assert low["total"] == 2 and low["shown"][0]["document"]["title"] == HOSTILE


def test_lists_are_capped_and_all_are_counted(toy, monkeypatch):
    monkeypatch.setattr(record, "MAX_DROPS", 1)
    monkeypatch.setattr(record, "MAX_ORIGINS", 1)
    capped = record.gather(*toy)
    low = by_name(capped.blocks["drops"], "rule", "below the relevance threshold")
    assert len(low["shown"]) == 1 and low["total"] == 2
    assert len(capped.record["origins"]) == 1 and capped.record["more_origins"] == 1


def test_a_near_duplicate_stands_beside_its_keeper(curation):
    (pair,) = [pair for pair in curation.blocks["pairs"] if pair["rule"] == "near-duplicate"]
    rows = [row for row in pair["comparison"]["rows"] if "left" in row]
    marked = [text for row in rows for text, differs in row["right"] if differs]
    assert [text.strip() for text in marked] == [f"另有规定的除外{HOSTILE}。"]


def test_what_differs_beyond_what_is_compared_is_not_called_equal(toy, monkeypatch):
    (pair,) = record.gather(*toy).blocks["pairs"]
    assert not pair["comparison"]["cut"]
    monkeypatch.setattr(survey, "COMPARED_CHARS", 1000)  # the texts differ further down
    (pair,) = record.gather(*toy).blocks["pairs"]
    comparison = pair["comparison"]
    assert comparison["cut"] and not any("left" in row for row in comparison["rows"])


def test_a_question_that_was_found_is_shown_in_its_place(curation):
    (found,) = curation.blocks["contamination"]
    assert found["passage"]["match"] == QUESTION
    assert found["passage"]["before"].endswith("\n")
    assert found["source"] == "corpus/web/leak.txt"


def test_shares_topics_and_lengths_count_documents(curation):
    laws = by_name(curation.record["origins"], "origin", "corpus/laws")
    assert (laws["documents_in"], laws["documents"], laws["tier"]) == (3, 1, 1)
    topic = by_name(curation.record["topics"], "topic", "state assets")
    assert (topic["read"], topic["kept"]) == (4, 1)
    assert sum(curation.record["lengths"]["read"]) == 6
    assert sum(curation.record["lengths"]["kept"]) == 1
    assert sum(curation.record["relevance"]["scored"]) == 3
    assert curation.record["relevance"]["kept"][-3:] == [0, 1, 0]


def test_a_rule_that_takes_more_than_its_share_of_an_origin_is_warned_of(curation):
    warnings = {
        (warning["rule"], warning["origin"], warning["unit"])
        for warning in curation.record["warnings"]
    }
    assert ("near-duplicate", "corpus/laws", "documents") in warnings
    assert ("below the relevance threshold", "corpus/web", "documents") in warnings
    assert not any(unit == "documents" and "space" in rule for rule, _, unit in warnings)


def test_the_frontier_has_precision_and_recall_where_labels_are(curation):
    row = by_name(curation.record["frontier"], "threshold", 0.5)
    assert (row["documents"], row["precision"], row["recall"]) == (1, 1.0, 1.0)
    assert curation.record["threshold"] == 0.5 and curation.record["num_judged"] == 2


def test_the_page_and_its_json_are_written_once_until_a_step_is_newer(toy, tmp_path):
    store, last = toy
    (line,) = page.write_outdated(store, [last])
    path = page.path_of(store, last)
    assert line.startswith(f"{path} (") and path.exists()
    whole = json.loads(path.with_suffix(".json").read_text("utf-8"))
    assert {"steps", "drops", "pairs", "contamination"} <= set(whole)
    assert page.write_outdated(store, [last]) == [str(path)]
    build(store, last)  # as if it were built anew
    assert page.write_outdated(store, [last]) == [line]


def test_a_goal_without_files_of_a_user_has_no_page(toy):
    store, last = toy
    other = build(store, type(last)("soaes.stages.prepare.world", {"seed": 0}))
    assert steps.curated(other) is None and page.write_outdated(store, [other]) == []


def test_a_step_that_is_not_built_is_named(toy):
    store, last = toy
    later = type(last)("soaes.stages.curate.files", {"documents": last})
    partial = record.gather(store, later)
    assert partial.record["unbuilt"] == ["files"] and partial.record["kinds"] == {}


def test_rules_steps_and_topics_are_translated():
    chinese = read_json(ASSETS / "curation/chinese.json")
    cleaning, domain = (
        yaml.safe_load((CONF / name).read_text("utf-8"))
        for name in ("cleaning/documents.yaml", "domain/soaes.yaml")
    )
    errors = "Unreadable|ParseError|RecordFormatError"
    reason = rf'(?:{errors})\(\s*"([^"]+)"|Rejection\(\w+, "([^"]+)"'
    sources = [*SOAES.glob("data/readers/*.py"), *SOAES.glob("data/curation/*.py")]
    found = [pair for path in sources for pair in re.findall(reason, path.read_text("utf-8"))]
    reasons = {name for pair in found for name in pair if name}
    assert len(reasons) > 30 and {CRASHED, HUNG} <= set(chinese)
    names = [
        *reasons,
        *steps.STEPS,
        *CLEANING_RULES,
        *RULES[1:],
        *cleaning["boilerplate"],
        *domain["topics"],
    ]
    assert not [name for name in names if name not in chinese]
