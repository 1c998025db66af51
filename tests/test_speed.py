"""The speed and acceptance stages on toy folders: a row is measured in pairs, and counts only with its proof."""

import json
from functools import partial

import pytest
from toys import save_pair

from soaes.decode.autoregressive import Autoregressive
from soaes.decode.backends import native, transformers_backend
from soaes.decode.prompt_lookup import PromptLookup
from soaes.decode.speculative import Speculative
from soaes.decode.verify import paper_literal
from soaes.metrics.acceptance import accounted_speedup
from soaes.stages.speculate import acceptance, speed


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A target, a draft and six questions as folders."""
    root = tmp_path_factory.mktemp("speed")
    save_pair(root)
    (root / "qa" / "test.jsonl").write_text("".join(json.dumps(question(index)) + "\n" for index in range(6)))
    return root


def question(index):
    user = {"role": "user", "content": f"w{index} w9 w{index}"}
    return {"id": f"q{index}", "task": "report" if index == 5 else "qa", "messages": [user, {"role": "assistant", "content": f"w{index}"}]}


METHODS = {
    "draft": partial(Speculative, n=3),
    "lookup": partial(PromptLookup, n=3, match=2),
    "plain": partial(Autoregressive),
}


ASKED = dict(prompts={"qa": 3, "report": 1}, max_new_tokens={"qa": 12, "report": 20}, seed=0, dtype="float32")


def measure(world, decode, out, temperature=0.0, top_p=1.0, **changes):
    arguments = ASKED | dict(rounds=3, threads=1, draft=world / "draft")
    speed(
        world / "target", world, decode=decode, sampling={"temperature": temperature, "top_p": top_p}, out=out,
        **(arguments | changes),
    )  # fmt: skip
    lines = (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return json.loads((out / "metrics.json").read_text()), [json.loads(line) for line in lines]


@pytest.mark.parametrize("method", METHODS)
def test_speed_measures_a_row_and_proves_it(world, tmp_path, method):
    metrics, predictions = measure(world, METHODS[method], tmp_path / "out")
    assert metrics["proof"] == "equal tokens" and metrics["rouge1"] == metrics["rouge1_autoregressive"]
    assert [item["prediction"] for item in predictions] == [item["autoregressive"] for item in predictions]
    assert metrics["speedup_low"] <= metrics["speedup"] <= metrics["speedup_high"] and metrics["tokens_per_s"] > 0
    if method == "plain":
        assert metrics["speedup"] == metrics["predicted_speedup"] == metrics["tokens_per_step"] == 1
        assert metrics["acceptance_rate"] is None
    if method == "draft":
        assert metrics["acceptance_rate"] == pytest.approx(metrics["overlap"])  # greedy: a one-hot overlap is a match
        assert metrics["acceptance_rate"] >= metrics["accepted_over_drafted"] > 0 and metrics["draft_cost"] > 0.2


def test_speed_under_sampling_rests_on_the_law(world, tmp_path):
    metrics, predictions = measure(world, METHODS["draft"], tmp_path / "out", temperature=1.0, top_p=0.7)
    assert metrics["proof"] == "law" and 0 < metrics["overlap"] <= 100
    assert sum(item["new_tokens"] for item in predictions) == metrics["new_tokens_mean"] * 4


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_another_librarys_row_has_the_format_of_ours(world, tmp_path, temperature):
    """Its greedy tokens are ours as well; what it does not tell is missing."""
    (ours, own), (theirs, other) = (
        measure(world, METHODS["draft"], tmp_path / name, temperature=temperature, backend=partial(module.open))
        for name, module in {"native": native, "hf": transformers_backend}.items()
    )
    assert ours.keys() == theirs.keys()
    assert not own[0].keys() - other[0].keys() and theirs["predicted_speedup"] is theirs["draft_cost"] is None
    assert theirs["like_native"] == (None if temperature else 100) and ours["like_native"] is None
    assert theirs["accepted_over_drafted"] > 0 and theirs["tokens_per_step"] > 1
    if temperature:
        assert theirs["acceptance_rate"] is theirs["overlap"] is None
    else:
        assert all(ours[name] == theirs[name] for name in ("acceptance_rate", "accepted_over_drafted", "tokens_per_step", "overlap"))


def test_speed_is_made_of_its_prompts(world, tmp_path):
    metrics, predictions = measure(world, METHODS["draft"], tmp_path / "out")
    assert [item["task"] for item in predictions] == ["qa", "qa", "qa", "report"]
    assert {len(item["seconds"]) for item in predictions} == {len(item["autoregressive_seconds"]) for item in predictions} == {3}
    ours, theirs = (sum(item[name][0] for item in predictions) for name in ("seconds", "autoregressive_seconds"))
    assert metrics["speedup_low"] <= theirs / ours * (1 + 1e-9) and theirs / ours <= metrics["speedup_high"] * (1 + 1e-9)
    last = predictions[-1]
    assert metrics["report_tokens_per_step"] == last["new_tokens"] / last["steps"] and metrics["qa_speedup"] > 0


def test_acceptance_counts_what_speed_counts(world, tmp_path):
    timed, predictions = measure(world, METHODS["draft"], tmp_path / "speed", temperature=1.0, top_p=0.7)
    (out := tmp_path / "acceptance").mkdir()
    acceptance(world / "target", world, draft=world / "draft", decode=METHODS["draft"], sampling={"temperature": 1.0, "top_p": 0.7},
               out=out, **ASKED)  # fmt: skip
    counted = json.loads((out / "metrics.json").read_text())
    for name in ("acceptance_rate", "overlap", "accepted_over_drafted", "tokens_per_step", "qa_acceptance_rate", "rouge1"):
        assert counted[name] == timed[name]
    lines = (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["prediction"] for line in lines] == [item["prediction"] for item in predictions]


def test_the_prediction_is_made_of_counts_and_costs():
    """Free drafts and verifications that cost a step: as many times faster as there are tokens a step. Then each cost in its place."""
    of = {"new_tokens": 10, "steps": 4, "drafted": 8, "tests_per_position": [3, 3, 2], "autoregressive_new_tokens": 10}
    free = {"draft_cost": 0.0, "verify_costs": [1.0] * 4, "prompt_cost": 1.0, "draft_prompt_cost": 0.0}
    assert accounted_speedup([of, of], free) == 10 / 4
    # one block of 0, one of 2 and two of 3 drafted tokens, one of the last two with the prompt
    dear = {"draft_cost": 0.1, "verify_costs": [1.0, 1.1, 1.2, 1.5], "prompt_cost": 5.0, "draft_prompt_cost": 0.5}
    assert accounted_speedup([of], dear) == pytest.approx((5 + 9) / (5 + 0.5 + 7 * 0.1 + 1.0 + 1.2 + 1.5))
    assert accounted_speedup([of], free | {"draft_cost": None}) is None


def test_a_row_of_a_biased_rule_says_so(world, tmp_path):
    biased = partial(Speculative, n=3, rule=partial(paper_literal))
    metrics, _ = measure(world, biased, tmp_path / "out", temperature=1.0, top_p=0.7)
    assert metrics["proof"] == "biased" and metrics["rule"] == "paper_literal (biased)"


def test_what_the_oracle_foretold_stands_beside_what_was_measured(world, tmp_path):
    (told := tmp_path / "predict").mkdir()
    (told / "metrics.json").write_text(json.dumps({"overlap_on_text": 80.0, "tokens_per_step_n3": 2.6, "drafted_per_block_n3": 3.0}))
    metrics, _ = measure(world, METHODS["draft"], tmp_path / "out", prediction=told)
    assert metrics["oracle_tokens_per_step"] == 2.6
    assert metrics["oracle_speedup"] == pytest.approx(2.6 / (3 * metrics["draft_cost"] + metrics["verify_cost"]))
    with pytest.raises(ValueError, match="predict.up_to=4"):
        measure(world, partial(Speculative, n=4), tmp_path / "four", prediction=told)


class Wrong(PromptLookup):
    """Planted bug: the third token is never the target's."""

    def generate(self, prompt_ids, max_new_tokens, generator):
        made = super().generate(prompt_ids, max_new_tokens, generator)
        made.tokens[2:3] = [(token + 1) % 64 for token in made.tokens[2:3]]
        return made


def test_speed_refuses(world, tmp_path):
    refusals = [
        ("row refused: prompt q0 differs from autoregression at new token 2", partial(Wrong, n=3, match=2), {}),
        ("draft and target are both", METHODS["draft"], {"draft": world / "target"}),
        ("needs a draft model", METHODS["draft"], {"draft": None}),
        ("rounds=2", METHODS["plain"], {"rounds": 2}),
        ("5 of 5 qa prompts .* fit .* prompts.qa=7", METHODS["plain"], {"prompts": {"qa": 7}}),
        ("none of 6 test samples is of the tasks essay", METHODS["plain"], {"prompts": {"essay": 7}, "max_new_tokens": {"essay": 7}}),
        ("dtype=int8", METHODS["plain"], {"dtype": "int8"}),
        ("0 of 5 qa prompts", METHODS["plain"], {"max_new_tokens": {"qa": 600, "report": 600}}),
    ]
    for words, decode, changes in refusals:
        with pytest.raises(ValueError, match=words):
            measure(world, decode, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()
