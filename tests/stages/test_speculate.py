"""The stages speed and acceptance on toys: rows are measured in pairs, and count only if proved."""

import json
import shutil
from contextlib import contextmanager
from dataclasses import replace

import pytest
from transformers import MistralConfig, MistralForCausalLM

from soaes.data import chat
from soaes.decode.backends import native, transformers_backend
from soaes.decode.engine import Engine
from soaes.decode.prompt_lookup import PromptLookup
from soaes.decode.settings import (
    AutoregressiveSettings,
    PromptLookupSettings,
    SamplingSettings,
    SpeculativeSettings,
)
from soaes.metrics.acceptance import MeasuredCosts, accounted_speedup
from soaes.pipeline import progress
from soaes.stages.speculate import _engine_target, _model_target, acceptance, speed
from soaes.stages.trace import target_trace
from tests.helpers.toys import ASKED, add_long_question, question, save_questions, toy

METHODS = {
    "draft": SpeculativeSettings(n=3),
    "lookup": PromptLookupSettings(n=3, max_ngram=2),
    "plain": AutoregressiveSettings(),
}


def measure(decoding_world, decode, out, temperature=0.0, top_p=1.0, **changes):
    arguments = ASKED | dict(rounds=3, threads=1, draft=decoding_world / "draft")
    speed(
        decoding_world / "target",
        decoding_world,
        decode=decode,
        sampling=SamplingSettings(temperature, top_p),
        out=out,
        **(arguments | changes),
    )
    lines = (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return json.loads((out / "metrics.json").read_text()), [json.loads(line) for line in lines]


@pytest.mark.parametrize("method", METHODS)
def test_speed_measures_a_row_and_proves_it(decoding_world, tmp_path, method):
    metrics, predictions = measure(decoding_world, METHODS[method], tmp_path / "out")
    assert (
        metrics["proof"] == "equal tokens" and metrics["rouge1"] == metrics["rouge1_autoregressive"]
    )
    assert [item["prediction"] for item in predictions] == [
        item["autoregressive"] for item in predictions
    ]
    assert (
        metrics["speedup_low"] <= metrics["speedup"] <= metrics["speedup_high"]
        and metrics["tokens_per_s"] > 0
    )
    if method == "plain":
        assert (
            metrics["speedup"]
            == metrics["predicted_speedup"]
            == metrics["mean_acceptance_length"]
            == 1
        )
        assert metrics["acceptance_rate_per_position"] is None
    if method == "draft":
        assert metrics["acceptance_rate_per_position"] == pytest.approx(
            metrics["overlap"]
        )  # greedy: a one-hot overlap is a match
        assert (
            metrics["acceptance_rate_per_position"] >= metrics["draft_acceptance_rate"] > 0
            and metrics["draft_cost"] > 0.2
        )


def test_speed_under_sampling_rests_on_the_law(decoding_world, tmp_path):
    metrics, predictions = measure(
        decoding_world, METHODS["draft"], tmp_path / "out", temperature=1.0, top_p=0.7
    )
    assert metrics["proof"] == "law" and 0 < metrics["overlap"] <= 100
    assert sum(item["new_tokens"] for item in predictions) == metrics["new_tokens_mean"] * 4


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_another_librarys_row_has_the_format_of_ours(decoding_world, tmp_path, temperature):
    """Its greedy tokens are ours as well; what it does not tell is missing."""
    (ours, own), (theirs, other) = (
        measure(
            decoding_world,
            METHODS["draft"],
            tmp_path / name,
            temperature=temperature,
            backend=opened,
        )
        for name, opened in {
            "native": native.open_native,
            "hf": transformers_backend.open_transformers,
        }.items()
    )
    assert ours.keys() == theirs.keys()
    assert (
        not own[0].keys() - other[0].keys()
        and theirs["predicted_speedup"] is theirs["draft_cost"] is None
    )
    assert theirs["like_native"] == (None if temperature else 100) and ours["like_native"] is None
    assert theirs["draft_acceptance_rate"] > 0 and theirs["mean_acceptance_length"] > 1
    if temperature:
        assert theirs["acceptance_rate_per_position"] is theirs["overlap"] is None
    else:
        assert all(
            ours[name] == theirs[name]
            for name in (
                "acceptance_rate_per_position",
                "draft_acceptance_rate",
                "mean_acceptance_length",
                "overlap",
            )
        )


def test_speed_is_made_of_its_prompts(decoding_world, tmp_path):
    metrics, predictions = measure(decoding_world, METHODS["draft"], tmp_path / "out")
    assert [item["task"] for item in predictions] == ["qa", "qa", "qa", "report"]
    assert (
        {len(item["seconds"]) for item in predictions}
        == {len(item["autoregressive_seconds"]) for item in predictions}
        == {3}
    )
    ours, theirs = (
        sum(item[name][0] for item in predictions) for name in ("seconds", "autoregressive_seconds")
    )
    assert metrics["speedup_low"] <= theirs / ours * (1 + 1e-9) and theirs / ours <= metrics[
        "speedup_high"
    ] * (1 + 1e-9)
    last = predictions[-1]
    assert (
        metrics["report_mean_acceptance_length"] == last["new_tokens"] / last["steps"]
        and metrics["qa_speedup"] > 0
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_backend_is_told_its_longest_text_before_it_starts(decoding_world, tmp_path, method):
    """A prompt and its answer, with room for a block and a token behind them."""
    told = []

    @contextmanager
    def recording(folders, settings):
        told.append(settings.longest)
        with native.open_native(folders, settings) as pair:
            yield pair

    _, rows = measure(decoding_world, METHODS[method], tmp_path / "out", backend=recording)
    tokenizer, _ = chat.chat_tokenizer(decoding_world / "target")
    asked = [question(index) for index in range(6)]
    limits = {sample["id"]: ASKED["max_new_tokens"][sample["task"]] for sample in asked}
    prompts = {
        sample["id"]: len(chat.prompt(tokenizer, sample["messages"][:-1])) for sample in asked
    }
    longest = max(prompts[row["id"]] + limits[row["id"]] for row in rows)
    assert told == [longest + METHODS[method].n + 1] and told[0] < 512


def test_a_backend_that_reads_less_than_the_models_draws_from_prompts_that_fit(
    decoding_world, tmp_path
):
    world = shutil.copytree(decoding_world, tmp_path / "world")
    asked = [question(index) for index in range(6)]
    asked[3]["messages"][0]["content"] = "w9 " * 60
    save_questions(world, asked)
    skipped = {}
    for positions in (512, 64):

        @contextmanager
        def short(folders, settings, positions=positions):
            with native.open_native(folders, settings) as pair:
                yield replace(pair, positions=positions)

        metrics, _ = measure(world, METHODS["plain"], tmp_path / str(positions), backend=short)
        skipped[positions] = metrics["num_skipped"]
    assert skipped == {512: 0, 64: 1}


def test_acceptance_counts_what_speed_counts(decoding_world, tmp_path):
    timed, predictions = measure(
        decoding_world, METHODS["draft"], tmp_path / "speed", temperature=1.0, top_p=0.7
    )
    (out := tmp_path / "acceptance").mkdir()
    acceptance(
        decoding_world / "target",
        decoding_world,
        draft=decoding_world / "draft",
        decode=METHODS["draft"],
        sampling=SamplingSettings(1.0, 0.7),
        out=out,
        **ASKED,
    )
    counted = json.loads((out / "metrics.json").read_text())
    for name in (
        "acceptance_rate_per_position",
        "overlap",
        "draft_acceptance_rate",
        "mean_acceptance_length",
        "qa_acceptance_rate_per_position",
        "rouge1",
    ):
        assert counted[name] == timed[name]
    lines = (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["prediction"] for line in lines] == [
        item["prediction"] for item in predictions
    ]


def test_texts_in_a_batch_are_timed_together_and_counted_each(decoding_world, tmp_path):
    """Each counts what it counts alone; a batch's time is shared by steps."""
    together = SpeculativeSettings(n=3, batch=2)
    metrics, rows = measure(decoding_world, together, tmp_path / "speed")
    counted = {}
    for decode in (METHODS["draft"], together):
        (out := tmp_path / f"batch{decode.batch}").mkdir()
        acceptance(
            decoding_world / "target",
            decoding_world,
            draft=decoding_world / "draft",
            decode=decode,
            sampling=SamplingSettings(0.0, 1.0),
            out=out,
            **ASKED,
        )
        lines = (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
        counted[decode.batch] = [json.loads(line) for line in lines]
    assert counted[1] == counted[2]
    assert [row | of_one for row, of_one in zip(rows, counted[1], strict=True)] == rows
    shares = [row["seconds"][0] / row["steps"] for row in rows if row["task"] == "qa"]
    assert shares == pytest.approx([shares[0]] * 3)
    assert metrics["proof"] == "equal tokens" and metrics["tokens_per_s"] > 0
    assert metrics["draft_cost"] is None and metrics["predicted_speedup"] is None


def test_prompts_are_drawn_by_a_seed_whatever_the_order_of_the_file(decoding_world, tmp_path):
    turned = shutil.copytree(decoding_world, tmp_path / "turned")
    lines = (turned / "qa" / "test.jsonl").read_text().splitlines(keepends=True)
    (turned / "qa" / "test.jsonl").write_text("".join(reversed(lines)))
    drawn = [
        {item["id"] for item in measure(world, METHODS["plain"], tmp_path / str(n), **changes)[1]}
        for n, (world, changes) in enumerate(
            [(decoding_world, {}), (turned, {}), *((turned, {"sample_seed": n}) for n in range(9))]
        )
    ]
    assert all(len(ids) == 4 for ids in drawn)
    assert drawn[0] == drawn[1] == drawn[2], "the default is seed 0"
    assert len(set(map(frozenset, drawn))) > 3, "other seeds draw others"


@pytest.mark.parametrize("method", METHODS)
def test_answers_that_reach_the_limit_are_counted(decoding_world, tmp_path, method):
    """Texts drawn from random models end early now and then, and none within a token."""
    limits = {"qa": 40, "report": 40}
    metrics, rows = measure(
        decoding_world, METHODS[method], tmp_path / "long", 5.0, max_new_tokens=limits
    )
    cut = [row["is_cut"] for row in rows]
    assert cut == [row["new_tokens"] == 40 for row in rows] and 0 < sum(cut) < 4
    assert metrics["num_cut"] == sum(cut) and metrics["report_num_cut"] == cut[-1]
    metrics, rows = measure(
        decoding_world, METHODS[method], tmp_path / "short", max_new_tokens=dict.fromkeys(limits, 1)
    )
    assert metrics["num_cut"] == 4 == sum(row["is_cut"] for row in rows)
    assert "num_cut 4" in progress.headline(metrics)


def test_the_prediction_is_made_of_counts_and_costs():
    """Free drafts and verifications of a step each: the speedup is the tokens a step.

    Then each cost in its place.
    """
    counts = {
        "new_tokens": 10,
        "steps": 4,
        "drafted": 8,
        "tests_per_position": [3, 3, 2],
        "autoregressive_new_tokens": 10,
    }
    assert accounted_speedup([counts, counts], costs(0.0, [1.0] * 4, 1.0, 0.0)) == 10 / 4
    # one block of 0, one of 2 and two of 3 drafted tokens, one of the last two with the prompt
    dear = costs(0.1, [1.0, 1.1, 1.2, 1.5], 5.0, 0.5)
    assert accounted_speedup([counts], dear) == pytest.approx(
        (5 + 9) / (5 + 0.5 + 7 * 0.1 + 1.0 + 1.2 + 1.5)
    )
    assert accounted_speedup([counts], None) is None


def costs(draft, verify, prompt, draft_prompt):
    return MeasuredCosts(draft, verify[-1], verify, prompt, draft_prompt, 1.0, 1.0)


def test_a_row_of_a_biased_rule_says_so(decoding_world, tmp_path):
    biased = SpeculativeSettings(n=3, rule="paper_literal")
    metrics, _ = measure(decoding_world, biased, tmp_path / "out", temperature=1.0, top_p=0.7)
    assert metrics["proof"] == "biased" and metrics["rule"] == "paper_literal (biased)"


def test_predicted_acceptance_stands_beside_the_measured(decoding_world, tmp_path):
    (prediction := tmp_path / "predict").mkdir()
    (prediction / "metrics.json").write_text(
        json.dumps(
            {"overlap_on_text": 80.0, "mean_acceptance_length_n3": 2.6, "drafted_per_block_n3": 3.0}
        )
    )
    metrics, _ = measure(decoding_world, METHODS["draft"], tmp_path / "out", prediction=prediction)
    assert metrics["expected_acceptance_length"] == 2.6
    assert metrics["expected_speedup"] == pytest.approx(
        2.6 / (3 * metrics["draft_cost"] + metrics["verify_cost"])
    )
    with pytest.raises(ValueError, match="predict_acceptance.max_n=4"):
        measure(decoding_world, SpeculativeSettings(n=4), tmp_path / "four", prediction=prediction)


@pytest.mark.parametrize("stage", ["speed", "acceptance", "target_trace"])
def test_prompts_that_do_not_fit_are_counted(decoding_world, tmp_path, stage):
    """And not drawn; where too few are left the error counts them."""
    world = shutil.copytree(decoding_world, tmp_path / "world")

    def metrics(name, **changes):
        (out := tmp_path / name).mkdir()
        words = ASKED | {"prompts": {"qa": 4, "report": 1}, "sampling": SamplingSettings(0.0, 1.0)}
        words |= {"out": out, **changes}
        if stage == "target_trace":
            target_trace(world / "target", world, split="test", **words)
        elif stage == "acceptance":
            acceptance(world / "target", world, decode=METHODS["lookup"], **words)
        else:
            words |= {"rounds": 3, "threads": 1, "warmup": 0}
            speed(world / "target", world, decode=METHODS["lookup"], **words)
        return json.loads((out / "metrics.json").read_text())

    assert metrics("all")["num_skipped"] == 0
    add_long_question(world)
    fewer = metrics("fewer")
    assert fewer["num_skipped"] == 1 and "num_skipped 1" in progress.headline(fewer)
    with pytest.raises(ValueError, match="4 of 5 qa prompts of the test split fit"):
        metrics("none", prompts={"qa": 5})


class Wrong(PromptLookup):
    """Planted bug: the third token is never the target's."""

    def generate(self, prompt_ids, max_new_tokens, generator):
        generation = super().generate(prompt_ids, max_new_tokens, generator)
        generation.tokens[2:3] = [(token + 1) % 64 for token in generation.tokens[2:3]]
        return generation


class WrongSettings(PromptLookupSettings):
    def build(self, engines, sampling, eos):
        return Wrong.from_settings(self, engines, sampling, eos)


class Twin(PromptLookup):
    """Rounds a tie the other way: the third token is the other one of its pair."""

    def generate(self, prompt_ids, max_new_tokens, generator):
        generation = super().generate(prompt_ids, max_new_tokens, generator)
        generation.tokens[2:3] = [token ^ 1 for token in generation.tokens[2:3]]
        return generation


class TwinSettings(PromptLookupSettings):
    def build(self, engines, sampling, eos):
        return Twin.from_settings(self, engines, sampling, eos)


@pytest.fixture(scope="module")
def twins(decoding_world, tmp_path_factory):
    """The same folders, with a target to which tokens 2i and 2i + 1 are one."""
    root = shutil.copytree(decoding_world, tmp_path_factory.mktemp("twins") / "world")
    model = toy(1)
    for weight_VH in (model.lm_head.weight.data, model.model.embed_tokens.weight.data):
        weight_VH[1::2] = weight_VH[::2]
        weight_VH[:2] = 0  # no text ends early
    model.save_pretrained(root / "target")
    return root


LOW = {"dtype": "bfloat16", "warmup": 0}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_near_ties_are_counted(twins, tmp_path, dtype):
    settings = TwinSettings(n=3, max_ngram=2)
    metrics, rows = measure(twins, settings, tmp_path / "out", dtype=dtype, warmup=0)
    near_ties = [row["near_ties"] for row in rows]
    assert all(near_ties) and metrics["near_tie_answers"] == 100
    new_tokens = sum(row["new_tokens"] for row in rows)
    assert metrics["near_tie_tokens"] == 100 * sum(near_ties) / new_tokens < 100
    assert metrics["proof"] == "equal tokens but for near ties"


@pytest.mark.parametrize(
    ("dtype", "way_out"),
    [("bfloat16", "set dtype=float32"), ("float32", "the decoder is wrong")],
    ids=["bfloat16", "float32"],
)
def test_what_is_no_near_tie_is_refused_in_every_precision(
    decoding_world, tmp_path, dtype, way_out
):
    wrong = WrongSettings(n=3, max_ngram=2)
    with pytest.raises(ValueError, match=f"at no near tie: at new token 2 .*{way_out}"):
        measure(decoding_world, wrong, tmp_path / "out", dtype=dtype, warmup=0)


def test_both_ways_to_read_a_target_know_its_longest_sum():
    model = toy(1)
    assert _engine_target(Engine(model)).terms == _model_target(model).terms == 48


def test_another_librarys_near_ties_are_judged_by_the_models_own_forward(
    twins, tmp_path, monkeypatch
):
    def flipped(assisted, *arguments):
        generation = generate(assisted, *arguments)
        generation.tokens[2] ^= 1
        return generation

    generate = transformers_backend.Assisted.generate
    monkeypatch.setattr(transformers_backend.Assisted, "generate", flipped)
    low = LOW | {"backend": transformers_backend.open_transformers, "prompts": {"qa": 1}}
    metrics, rows = measure(twins, METHODS["lookup"], tmp_path / "out", **low)
    assert rows[0]["near_ties"] and metrics["near_tie_answers"] == 100


def test_another_library_is_timed_on_a_family_that_our_decoding_does_not_run(
    decoding_world, tmp_path
):
    """Greedy too, where its texts were compared with ours: there is nothing to compare with."""
    root = shutil.copytree(decoding_world, tmp_path / "world")
    shape = dict(num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
    size = dict(hidden_size=16, intermediate_size=16, vocab_size=64, max_position_embeddings=512)
    MistralForCausalLM(MistralConfig(**shape, **size)).save_pretrained(root / "target")
    backend = {"backend": transformers_backend.open_transformers, "prompts": {"qa": 1}}
    metrics, _ = measure(root, METHODS["lookup"], tmp_path / "out", warmup=0, **backend)
    assert metrics["proof"] == "equal tokens" and metrics["like_native"] is None


def test_speed_refuses(decoding_world, tmp_path):
    refusals = [
        (
            "row refused: prompt q. differs from autoregression at new token 2",
            WrongSettings(n=3, max_ngram=2),
            {},
        ),
        ("draft and target are both", METHODS["draft"], {"draft": decoding_world / "target"}),
        ("needs a draft model", METHODS["draft"], {"draft": None}),
        ("rounds=2", METHODS["plain"], {"rounds": 2}),
        ("5 of 5 qa prompts .* fit .* prompts.qa=7", METHODS["plain"], {"prompts": {"qa": 7}}),
        (
            "none of 6 test samples is of the tasks essay",
            METHODS["plain"],
            {"prompts": {"essay": 7}, "max_new_tokens": {"essay": 7}},
        ),
        ("dtype=int8", METHODS["plain"], {"dtype": "int8"}),
        ("0 of 5 qa prompts", METHODS["plain"], {"max_new_tokens": {"qa": 600, "report": 600}}),
    ]
    for words, decode, changes in refusals:
        with pytest.raises(ValueError, match=words):
            measure(decoding_world, decode, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()
