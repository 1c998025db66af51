"""Laws of evaluation: questions about unseen enterprises are scored beside the split, not in it.

A random model is enough.
"""

import json

import pytest

from soaes.data.jsonl import read_jsonl
from soaes.metrics import estimators
from soaes.model import checkpoint
from soaes.stages import evaluate, prepare

TOKENS = {"qa": 8, "report": 8}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Documents with questions set apart, and a model that has learnt nothing."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("documents", "tokenizer", "model")}
    prepare.world(0, 12, 4, 8, 4, 4, 2, 0, 40, 120, 20, 2, 40, out=folders["documents"])
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
    assert both["unseen_samples"] == len(apart) == 7 and {row["id"] for row in apart} == {
        f"unseen-{n}" for n in range(7)
    }
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
