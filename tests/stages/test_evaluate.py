"""Laws of evaluation: questions about unseen enterprises are scored beside the split, not in it.

A random model is enough.
"""

import json
import math
import shutil

import pytest

from soaes.data import splits
from soaes.data.chat import load_tokenizer
from soaes.data.jsonl import read_jsonl, write_jsonl
from soaes.metrics import estimators
from soaes.metrics.recall import recall, vocabulary
from soaes.model import checkpoint
from soaes.stages import evaluate, prepare

TOKENS = {"qa": 8, "report": 8}
POSITIONS = 4 * 128  # of the model: its context by position_factor


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Documents with questions set apart, and a model that has learnt nothing."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("documents", "tokenizer", "model")}
    prepare.world(0, 12, 4, 8, 4, 4, 2, 0, 40, 0, 120, 20, 2, 40, out=folders["documents"])
    prepare.tokenizer(folders["documents"], 600, out=folders["tokenizer"])
    checkpoint.save(
        checkpoint.create(folders["tokenizer"], 1, 32, 1, 1, 128, 0),
        folders["model"],
        folders["tokenizer"],
    )
    return folders


def evaluated(world, out, documents=None, **changes):
    out.mkdir()
    evaluate.evaluate(
        world["model"], documents or world["documents"], "test", 5, TOKENS, **changes, out=out
    )
    return json.loads((out / "metrics.json").read_text()), read_jsonl(out / "predictions.jsonl")


def test_questions_set_apart_are_scored_beside_the_split(world, tmp_path):
    alone, rows = evaluated(world, tmp_path / "alone")
    both, more = evaluated(world, tmp_path / "both", unseen_samples=7)
    assert {row["split"] for row in rows} == {"test"} and more[: len(rows)] == rows
    assert {key: value for key, value in both.items() if not key.startswith("unseen_")} == alone
    apart = [row for row in more if row["split"] == "unseen"]
    unseen = {row["id"] for row in read_jsonl(world["documents"] / "qa" / "unseen.jsonl")}
    assert both["unseen_samples"] == 7 == len({row["id"] for row in apart} & unseen)
    for score in estimators.SCORES:
        assert both[f"unseen_{score}"] == pytest.approx(sum(row[score] for row in apart) / 7)
    assert {"unseen_exact_match", "unseen_num_skipped"} <= both.keys()


def test_null_answers_all_that_are_set_apart_and_data_without_any_do_without(world, tmp_path):
    assert evaluated(world, tmp_path / "all", unseen_samples=None)[0]["unseen_samples"] == 40
    bare = tmp_path / "bare" / "qa"
    bare.mkdir(parents=True)
    (bare / "test.jsonl").write_bytes((world["documents"] / "qa" / "test.jsonl").read_bytes())
    assert (
        "unseen_samples"
        not in evaluated(world, tmp_path / "without", bare.parent, unseen_samples=None)[0]
    )


def test_samples_are_drawn_by_a_seed_whatever_the_order_of_the_file(world, tmp_path):
    turned = shutil.copytree(world["documents"], tmp_path / "turned")
    questions = read_jsonl(turned / "qa" / "test.jsonl")
    write_jsonl(turned / "qa" / "test.jsonl", questions[::-1])
    answered = [
        {row["id"] for row in evaluated(world, tmp_path / str(n), folder, **changes)[1]}
        for n, (folder, changes) in enumerate(
            [(None, {}), (turned, {}), (None, {"sample_seed": 1})]
        )
    ]
    assert answered[0] == answered[1] != answered[2]
    assert answered[0] != {row["id"] for row in questions[:5]}


def test_a_sample_holds_every_smaller_one_and_a_whole_set_stays_as_it_is():
    records = [{"id": f"q{n}"} for n in range(40)]
    drawn = [splits.sample(records, count, 3) for count in range(1, 41)]
    for smaller, larger in zip(drawn, drawn[1:]):
        assert len(smaller) + 1 == len(larger) and all(record in larger for record in smaller)
        assert larger == sorted(larger, key=records.index)
    assert drawn[-1] == splits.sample(records, None, 3) == splits.sample(records, 99, 3) == records


def test_recall_stands_beside_the_scores_where_questions_say_what_they_ask_for(world, tmp_path):
    metrics, rows = evaluated(world, tmp_path / "with", unseen_samples=7)
    seen = [row for row in rows if row["split"] == "test"]
    for name in estimators.RECALLS:
        assert metrics[name] == sum(row[name] for row in seen) / len(seen)
        assert f"unseen_{name}" in metrics and f"qa_{name}" in metrics
    plain = shutil.copytree(world["documents"], tmp_path / "plain")
    questions = read_jsonl(plain / "qa" / "test.jsonl")
    for row in questions:
        del row["values"]
    write_jsonl(plain / "qa" / "test.jsonl", questions)
    metrics, _ = evaluated(world, tmp_path / "without", plain)
    assert not {"value_recall", "num_without_values"} & metrics.keys()


def test_questions_that_do_not_say_what_they_ask_for_are_counted_beside_others(world, tmp_path):
    mixed = shutil.copytree(world["documents"], tmp_path / "mixed")
    questions = read_jsonl(mixed / "qa" / "test.jsonl")
    for row in questions[::2]:
        del row["values"]
    write_jsonl(mixed / "qa" / "test.jsonl", questions)
    metrics, rows = evaluated(world, tmp_path / "out", mixed)
    without = sum("value_recall" not in row for row in rows)
    assert 0 < without < len(rows) and metrics["num_without_values"] == without


def test_the_references_of_the_world_recall_all_that_is_asked_for(world):
    records = read_jsonl(world["documents"] / "qa" / "train.jsonl")
    values = vocabulary(records)
    for record in records:
        assert recall(record, record["messages"][-1]["content"], values) == (100, 100)


def test_answers_that_reach_the_limit_are_counted(world, tmp_path):
    metrics, rows = evaluated(world, tmp_path / "out")
    cut = [row["is_cut"] for row in rows]
    assert metrics["num_cut"] == sum(cut) == len(rows) == 5  # an untrained model never ends
    assert metrics["qa_num_cut"] + metrics.get("report_num_cut", 0) == 5


def test_the_loss_of_the_references_is_a_mean_over_their_tokens(world, tmp_path):
    metrics, rows = evaluated(world, tmp_path / "out", unseen_samples=7)
    for prefix, split in (("", "test"), ("unseen_", "unseen")):
        some = [row for row in rows if row["split"] == split]
        tokens = sum(row["reference_tokens"] for row in some)
        nats = sum(row["reference_nats"] for row in some)
        assert metrics[f"{prefix}reference_loss"] == pytest.approx(nats / tokens)
    size = load_tokenizer(world["tokenizer"]).get_vocab_size()
    assert metrics["reference_loss"] == pytest.approx(math.log(size), rel=0.1)  # knows nothing
    assert "num_references_cut" not in metrics


def test_references_beyond_the_positions_are_cut_and_counted(world, tmp_path):
    long = shutil.copytree(world["documents"], tmp_path / "long")
    questions = read_jsonl(long / "qa" / "test.jsonl")
    for row in questions:
        row["messages"][-1]["content"] *= 40
    write_jsonl(long / "qa" / "test.jsonl", questions)
    metrics, rows = evaluated(world, tmp_path / "out", long)
    assert metrics["num_references_cut"] == len(rows) == 5
    assert all(row["reference_tokens"] < POSITIONS for row in rows)
