"""The stages that predict acceptance: their counts are the decoder's, and rest on both models."""

import json

import numpy as np
import pytest
import torch

from soaes.data.jsonl import read_jsonl
from soaes.decode.engine import Engine
from soaes.decode.sampling import warp
from soaes.decode.settings import SamplingSettings
from soaes.decode.speculative import Speculative
from soaes.metrics import samples
from soaes.metrics.expected_acceptance import expected
from soaes.model import checkpoint
from soaes.stages.trace import predict_acceptance, target_trace
from tests.helpers.toys import ASKED

# T tokens of one text, V vocabulary


def run(decoding_world, out, temperature, top_p=1.0, max_n=5):
    for stage in ("trace", "predict"):
        (out / stage).mkdir(parents=True)
    target_trace(
        decoding_world / "target",
        decoding_world,
        sampling=SamplingSettings(temperature, top_p),
        split="test",
        out=out / "trace",
        **ASKED,
    )
    predict_acceptance(out / "trace", decoding_world / "draft", max_n=max_n, out=out / "predict")
    lines = [
        json.loads(line)
        for line in (out / "predict" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    texts = [
        json.loads(line)
        for line in (out / "trace" / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return json.loads((out / "predict" / "metrics.json").read_text()), lines, texts


def test_greedy_predictions_are_the_decoders_counts(decoding_world, tmp_path):
    metrics, lines, texts = run(decoding_world, tmp_path, 0.0)
    target, draft = (Engine(checkpoint.load(decoding_world / name)) for name in ("target", "draft"))
    for n in (1, 2, 3, 5):
        decoder = Speculative(target, draft, n, 0.0, 1.0, eos=1)
        generations = [
            decoder.generate(text["prompt_ids"], text["max_new_tokens"], torch.Generator())
            for text in texts
        ]
        assert [generation.tokens for generation in generations] == [
            text["tokens"] for text in texts
        ]
        assert [generation.steps for generation in generations] == [
            line["expected_steps"][str(n)] for line in lines
        ]
        assert [generation.accepted for generation in generations] == [
            line["expected_accepted"][str(n)] for line in lines
        ]
        assert metrics[f"mean_acceptance_length_n{n}"] == sum(
            len(generation.tokens) for generation in generations
        ) / sum(generation.steps for generation in generations)
    assert metrics["prompts"] == 4 and 0 < metrics["overlap_on_text"] < 100


def test_the_overlap_is_resampled_by_the_metrics_own_formula(decoding_world, tmp_path):
    metrics, _, _ = run(decoding_world, tmp_path, 1.0)
    statistics = samples.statistics(tmp_path / "predict" / "predictions.jsonl")
    (of_all,) = statistics["overlap_on_text"].statistic(np.ones((1, 4)))
    assert of_all == pytest.approx(metrics["overlap_on_text"], rel=1e-12)


def test_sampled_predictions_rest_on_both_distributions(decoding_world, tmp_path):
    metrics, lines, texts = run(decoding_world, tmp_path, 1.0, 0.7)
    rows = [both(decoding_world, text) for text in texts]
    overlaps = [float(torch.minimum(p_TV, q_TV).sum()) for p_TV, q_TV in rows]
    for line, text, (p_TV, q_TV) in zip(lines, texts, rows):
        p_T, q_T = (of_TV[range(len(of_TV)), text["tokens"]] for of_TV in (p_TV, q_TV))
        assert line["expected_steps"]["3"] == pytest.approx(
            expected((q_T / p_T).clamp(max=1).numpy(), 3, text["max_new_tokens"]).steps, abs=1e-4
        )
    assert [line["overlap"] for line in lines] == pytest.approx(overlaps, abs=1e-4)
    assert metrics["overlap_on_text"] == pytest.approx(
        100 * sum(overlaps) / sum(len(text["tokens"]) for text in texts), abs=1e-3
    )
    sizes = np.load(tmp_path / "trace" / "nuclei.npz")["sizes_T"]
    assert (
        json.loads((tmp_path / "trace" / "metrics.json").read_text())["bytes_per_token"]
        == 4 + 8 * sizes.mean()
    )


@torch.inference_mode()
def both(decoding_world, text):
    """The warped p_TV and q_TV over a text, by the models' own forward."""
    ids, count = torch.tensor([text["prompt_ids"] + text["tokens"]]), len(text["tokens"])
    return [
        warp(checkpoint.load(decoding_world / name)(ids).logits[0, -count - 1 : -1], 1.0, 0.7)
        for name in ("target", "draft")
    ]


def test_questions_are_drawn_by_a_seed_and_texts_that_reach_the_limit_counted(
    decoding_world, tmp_path
):
    texts = {}
    for seed in range(6):
        (out := tmp_path / str(seed)).mkdir()
        target_trace(
            decoding_world / "target",
            decoding_world,
            sampling=SamplingSettings(0.0, 1.0),
            split="test",
            sample_seed=seed,
            out=out,
            **ASKED,
        )
        texts[seed] = read_jsonl(out / "texts.jsonl")
        cut = sum(len(text["tokens"]) == text["max_new_tokens"] for text in texts[seed])
        assert json.loads((out / "metrics.json").read_text())["num_cut"] == cut > 0
    assert len({tuple(text["id"] for text in drawn) for drawn in texts.values()}) > 2


def test_a_draft_gets_the_rows_that_it_lacks(decoding_world, tmp_path):
    """Of these added rows, each is as likely as the one that opens a message: hardly ever."""
    run(decoding_world, tmp_path, 0.0)
    path = tmp_path / "trace" / "contract.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocabulary": 70}))
    (out := tmp_path / "padded").mkdir()
    predict_acceptance(tmp_path / "trace", decoding_world / "draft", max_n=5, out=out)
    written = [(tmp_path / name / "metrics.json").read_text() for name in ("predict", "padded")]
    assert written[0] == written[1]  # greedy drafts are the same


def test_predictions_refuse(decoding_world, tmp_path):
    with pytest.raises(ValueError, match="n=0"):
        run(decoding_world, tmp_path / "n", 0.0, max_n=0)
    contract = json.loads((tmp_path / "n" / "trace" / "contract.json").read_text())
    for change, message in (
        ({"tokenizer": "another"}, "tokenizer another"),
        ({"vocabulary": 63}, "vocabulary of 64 rows, .* one of 63"),
    ):
        (tmp_path / "n" / "trace" / "contract.json").write_text(json.dumps(contract | change))
        with pytest.raises(ValueError, match=message):
            predict_acceptance(
                tmp_path / "n" / "trace", decoding_world / "draft", max_n=1, out=tmp_path
            )
    with pytest.raises(ValueError, match="prompts.qa=9"):
        target_trace(
            decoding_world / "target",
            decoding_world,
            sampling=SamplingSettings(0.0, 1.0),
            split="test",
            out=tmp_path,
            **(ASKED | {"prompts": {"qa": 9}}),
        )
    with pytest.raises(ValueError, match="none of 0 dev samples"):
        target_trace(
            decoding_world / "target",
            decoding_world,
            sampling=SamplingSettings(0.0, 1.0),
            out=tmp_path,
            **ASKED,
        )
