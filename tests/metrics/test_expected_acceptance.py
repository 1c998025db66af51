"""The acceptance oracle: what it expects of a text is what every pattern of acceptance gives, and what the decoder does."""

import itertools
import json

import numpy as np
import pytest
import torch

from soaes.decode.engine import Engine
from soaes.decode.sampling import warp
from soaes.decode.speculative import Speculative
from soaes.metrics.expected_acceptance import expected, speedup
from soaes.model import checkpoint
from soaes.stages.speculate import predict_acceptance, target_trace
from tests.helpers.laws import NEVER, Table
from tests.helpers.toys import ASKED

# T tokens of one text, V vocabulary
torch.set_num_threads(1)


def random(count, seed=0):
    return np.random.default_rng(seed).random(count)


def blocks(passed_T, n, most):
    """(steps, accepted, reached, drafted) where token t would be accepted if tested, block by block as the decoder writes."""
    written = steps = accepted = reached = drafted = 0
    while written < len(passed_T):
        room = min(n, most - written - 1)
        tried = passed_T[written : written + room]
        run = tried.index(False) if False in tried else len(tried)
        ended = written + run == len(passed_T)  # an accepted eos
        steps, accepted, reached = steps + 1, accepted + run, reached + run + (run < len(tried))
        drafted += run if ended else room
        written += run + (not ended)
    return steps, accepted, reached, drafted


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("length, more", [(1, 0), (1, 3), (4, 0), (6, 1), (6, 2), (7, 9)])
def test_expectations_are_the_mean_over_all_patterns_of_acceptance(n, length, more):
    r_T, total = random(length, seed=n), np.zeros(4)
    for passed_T in itertools.product([False, True], repeat=length):
        total += np.prod(np.where(passed_T, r_T, 1 - r_T)) * np.array(
            blocks(passed_T, n, length + more)
        )
    assert expected(r_T, n, length + more) == pytest.approx(tuple(total), abs=1e-12)


@pytest.mark.parametrize("n", [1, 3, 8])
def test_a_twin_gives_n_more_tokens_a_step_and_a_stranger_none(n):
    twin, stranger = expected(np.ones(8 * (n + 1)), n, 8 * (n + 1)), expected(np.zeros(40), n, 40)
    assert twin == (8, 8 * n, 8 * n, 8 * n)
    assert stranger.steps == 40 and stranger.accepted == 0 and stranger.reached == 39


def test_a_better_draft_or_a_longer_block_never_takes_more_steps():
    for seed in range(20):
        r_T = random(12, seed)
        better_T = r_T + (1 - r_T) * random(12, seed + 100)
        steps = [expected(r_T, n, 15).steps for n in range(1, 9)]
        assert all(after <= before + 1e-12 for before, after in itertools.pairwise(steps))
        assert all(expected(better_T, n, 15).steps <= steps[n - 1] for n in range(1, 9))


def test_speedup_is_tokens_over_their_time():
    assert speedup(
        tokens=40, steps=10, drafted=30, draft_cost=0.1, verify_cost=1.2
    ) == pytest.approx(4 / (3 * 0.1 + 1.2))


def texts(target, draft, top_p, eos, most, context=(1, 2, 1), chance=1.0, r=()):
    """Every text that the target may write, with its probability and its r_T."""
    if len(r) == most or (r and context[-1] == eos):
        yield chance, np.array(r)
        return
    p_V, q_V = (warp(table.row(list(context)), 1.0, top_p).tolist() for table in (target, draft))
    for token, p in enumerate(p_V):
        if p > 0:
            yield from texts(
                target,
                draft,
                top_p,
                eos,
                most,
                (*context, token),
                chance * p,
                (*r, min(1, q_V[token] / p)),
            )


@pytest.mark.parametrize(
    "n, top_p, eos, most", [(1, 1.0, NEVER, 4), (2, 0.8, 4, 6), (3, 0.8, 3, 6), (4, 0.8, NEVER, 6)]
)
def test_the_oracle_is_what_the_decoder_does_on_average(n, top_p, eos, most, draws=500):
    target, draft, generator = Table(1, 5), Table(2, 5), torch.Generator().manual_seed(0)
    law = [
        (chance, expected(r_T, n, most), len(r_T))
        for chance, r_T in texts(target, draft, top_p, eos, most)
    ]
    steps, accepted, reached, drafted = (
        sum(chance * one[at] for chance, one, _ in law) for at in range(4)
    )
    decoder = Speculative(target, draft, n, 1.0, top_p, eos)
    made = [decoder.generate([1, 2, 1], most, generator) for _ in range(draws)]
    assert near([one.steps for one in made], steps) and near(
        [one.accepted for one in made], accepted
    )
    assert near(
        [len(one.tokens) for one in made], sum(chance * length for chance, _, length in law)
    )
    counts = [one.drafted for one in made]
    assert (
        reached < np.mean(counts) < drafted if eos != NEVER else near(counts, drafted)
    )  # without an eos no draft ends early


def near(counts, value):
    """Whether the mean of the counts lies within four standard errors of the value."""
    return abs(np.mean(counts) - value) < 4 * np.std(counts) / len(counts) ** 0.5 + 1e-9


def run(decoding_world, out, temperature, top_p=1.0, max_n=5):
    for stage in ("soft_targets", "predict"):
        (out / stage).mkdir(parents=True)
    sampling = {"temperature": temperature, "top_p": top_p}
    target_trace(
        decoding_world / "target",
        decoding_world,
        sampling=sampling,
        split="test",
        out=out / "soft_targets",
        **ASKED,
    )
    predict_acceptance(
        out / "soft_targets", decoding_world / "draft", max_n=max_n, out=out / "predict"
    )
    lines = [
        json.loads(line)
        for line in (out / "predict" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    said = [
        json.loads(line)
        for line in (out / "soft_targets" / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return json.loads((out / "predict" / "metrics.json").read_text()), lines, said


def test_greedy_predictions_are_the_decoders_counts(decoding_world, tmp_path):
    metrics, lines, said = run(decoding_world, tmp_path, 0.0)
    target, draft = (Engine(checkpoint.load(decoding_world / name)) for name in ("target", "draft"))
    for n in (1, 2, 3, 5):
        decoder = Speculative(target, draft, n, 0.0, 1.0, eos=1)
        made = [
            decoder.generate(text["prompt_ids"], text["most"], torch.Generator()) for text in said
        ]
        assert [one.tokens for one in made] == [text["tokens"] for text in said]
        assert [one.steps for one in made] == [line["expected_steps"][str(n)] for line in lines]
        assert [one.accepted for one in made] == [
            line["expected_accepted"][str(n)] for line in lines
        ]
        assert metrics[f"mean_acceptance_length_n{n}"] == sum(
            len(one.tokens) for one in made
        ) / sum(one.steps for one in made)
    assert metrics["prompts"] == 4 and 0 < metrics["overlap_on_text"] < 100


def test_sampled_predictions_rest_on_both_distributions(decoding_world, tmp_path):
    metrics, lines, said = run(decoding_world, tmp_path, 1.0, 0.7)
    rows = [both(decoding_world, text) for text in said]
    overlaps = [float(torch.minimum(p_TV, q_TV).sum()) for p_TV, q_TV in rows]
    for line, text, (p_TV, q_TV) in zip(lines, said, rows):
        p_T, q_T = (of_TV[range(len(of_TV)), text["tokens"]] for of_TV in (p_TV, q_TV))
        assert line["expected_steps"]["3"] == pytest.approx(
            expected((q_T / p_T).clamp(max=1).numpy(), 3, text["most"]).steps, abs=1e-4
        )
    assert [line["overlap"] for line in lines] == pytest.approx(overlaps, abs=1e-4)
    assert metrics["overlap_on_text"] == pytest.approx(
        100 * sum(overlaps) / sum(len(text["tokens"]) for text in said), abs=1e-3
    )
    sizes = np.load(tmp_path / "soft_targets" / "nuclei.npz")["sizes_T"]
    assert (
        json.loads((tmp_path / "soft_targets" / "metrics.json").read_text())["bytes_per_token"]
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


def test_predictions_refuse(decoding_world, tmp_path):
    with pytest.raises(ValueError, match="n=0"):
        run(decoding_world, tmp_path / "n", 0.0, max_n=0)
    contract = json.loads((tmp_path / "n" / "soft_targets" / "contract.json").read_text())
    for change, said in (
        ({"tokenizer": "another"}, "tokenizer another"),
        ({"vocabulary": 65}, "vocabulary of 64, .* one of 65"),
    ):
        (tmp_path / "n" / "soft_targets" / "contract.json").write_text(
            json.dumps(contract | change)
        )
        with pytest.raises(ValueError, match=said):
            predict_acceptance(
                tmp_path / "n" / "soft_targets", decoding_world / "draft", max_n=1, out=tmp_path
            )
    with pytest.raises(ValueError, match="prompts.qa=9"):
        target_trace(
            decoding_world / "target",
            decoding_world,
            sampling={"temperature": 0.0, "top_p": 1.0},
            split="test",
            out=tmp_path,
            **(ASKED | {"prompts": {"qa": 9}}),
        )
    with pytest.raises(ValueError, match="none of 0 dev samples"):
        target_trace(
            decoding_world / "target",
            decoding_world,
            sampling={"temperature": 0.0, "top_p": 1.0},
            out=tmp_path,
            **ASKED,
        )
