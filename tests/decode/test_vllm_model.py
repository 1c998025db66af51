"""Answers and exams by vLLM are transformers' own, but for rounding."""

import contextlib

import pytest
import torch

from soaes.data.chat import load_tokenizer, prompt
from soaes.data.jsonl import read_jsonl
from soaes.decode.backends import vllm_environment, vllm_model
from soaes.decode.backends.language_model import open_transformers
from soaes.decode.backends.vllm_model import VllmJudge, VllmModel
from soaes.decode.near_ties import Target, count_near_ties
from soaes.decode.prompts import Prompt
from soaes.metrics.exams import Asked, ModelJudge
from soaes.model import checkpoint, reference_loss
from soaes.pipeline.runtime import Execution
from soaes.stages import evaluate, prepare
from tests.helpers.toys import toy


class Scores:
    """Answers what vllm_process.py would, from the whole logits of a model."""

    def __init__(self, network):
        self.network = network

    def ask(self, request):
        return {"scores": [self.score(**text) for text in request["texts"]]}

    @torch.inference_mode()
    def score(self, ids, start, next):
        log_probs_TV = self.network(torch.tensor([ids])).logits[0].log_softmax(-1)
        pairs = [(index - 1, ids[index]) for index in range(start, len(ids))]
        pairs += [(len(ids) - 1, token) for token in next]
        logprobs = [log_probs_TV[index, token].item() for index, token in pairs]
        likeliest_T = log_probs_TV.argmax(-1).tolist()
        is_greedy = [likeliest_T[index] == token for index, token in pairs]
        scored = len(ids) - start
        return {"ids": logprobs[:scored], "next": logprobs[scored:], "is_greedy": is_greedy}


@pytest.fixture(scope="module")
def network():
    return toy(1)


def greedy_after(network, ids):
    return network(torch.tensor([ids])).logits[0, -1].argmax().item()


def test_options_of_any_length_are_judged_as_transformers_judges_them(network):
    best = greedy_after(network, [5, 9])
    asked = [
        Asked((5, 9), [[20], [21], [best], [20]]),
        Asked((5, 9, 30, 31), [[30, 31, 7], [31, 8], [9]]),
        Asked((7, best), [[best, greedy_after(network, [7, best])]]),
    ]
    ours = ModelJudge(network, network.lm_head, batch=2)(asked)
    theirs = VllmJudge(Scores(network), 512)(asked)
    for own, judged in zip(ours, theirs, strict=True):
        assert [score for score, _ in judged] == pytest.approx(
            [score for score, _ in own], abs=1e-5
        )
        assert [greedy for _, greedy in judged] == [greedy for _, greedy in own]
    assert theirs[0][2][1] and not theirs[0][0][1]


def test_references_cost_the_nats_of_their_own_tokens(network):
    prompts, answers = [[5, 9, 7], [20]], [[33, 34, 1], [6]]
    model = VllmModel(Scores(network), 512)
    nats = model.reference_nats(prompts, answers)
    assert nats == pytest.approx(reference_loss.reference_nats(network, prompts, answers), abs=1e-4)


def test_the_letters_of_a_question_are_one_request_that_scores_nothing_it_reads():
    text = vllm_model._text(Asked((5, 9, 4), [[10], [11], [12], [13]]))
    assert text == {"ids": (5, 9, 4), "start": 3, "next": [10, 11, 12, 13]}


# ---------------------------------------------------------------- vLLM itself


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Documents with exams, and a model of heads that vLLM reads."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("documents", "tokenizer", "model")}
    prepare.world(0, 12, 4, 8, 4, 4, 2, 0, 40, 0, 120, 20, 2, 40, out=folders["documents"])
    prepare.tokenizer(folders["documents"], 600, out=folders["tokenizer"])
    network = checkpoint.create(folders["tokenizer"], 2, 64, 2, 1, 128, 0, head_std=0.3)
    checkpoint.save(network, folders["model"], folders["tokenizer"])
    return folders


def outputs(world, out, backend):
    """The predictions of both stages."""
    execution = Execution(micro_batch_size=4)
    rows = {}
    for name in ("evaluate", "letter", "text"):
        (out / name).mkdir(parents=True)
        if name == "evaluate":
            tokens = {"qa": 24, "report": 40}
            evaluate.evaluate(
                world["model"],
                world["documents"],
                "test",
                12,
                tokens,
                execution=execution,
                backend=backend,
                out=out / name,
            )
        else:
            evaluate.benchmark(
                world["model"],
                world["documents"],
                0,
                4,
                name,
                execution=execution,
                backend=backend,
                out=out / name,
            )
        rows[name] = read_jsonl(out / name / "predictions.jsonl")
    return rows


def target_of(network):
    """The model as near ties are judged by."""

    @torch.inference_mode()
    def logits(ids, tail):
        return network(torch.tensor([ids]), logits_to_keep=tail).logits[0]

    return Target(logits, terms=192)


@pytest.mark.nightly
@pytest.mark.skipif(
    not vllm_environment.is_installed(), reason="vLLM's environment is not installed: make vllm"
)
def test_vllm_answers_and_scores_as_transformers_does(world, tmp_path):
    """Evaluation, and exams by letter and by text, from one start of vLLM."""
    execution = Execution(micro_batch_size=4)
    own = outputs(world, tmp_path / "own", open_transformers)
    tokenizer = load_tokenizer(world["model"])
    questions = read_jsonl(world["documents"] / "qa" / "test.jsonl")
    prompts = [prompt(tokenizer, question["messages"][:-1]) for question in questions]
    start = tuple(token for ids in prompts for token in ids)[:300]  # more than a block of the cache
    asked = [Asked((*start, token), [[10], [11], [12], [13]]) for token in range(20, 40)]
    with vllm_model.open_vllm_model(world["model"], execution) as model:
        theirs = outputs(world, tmp_path / "vllm", lambda *given: contextlib.nullcontext(model))
        written = model.write(prompts, 40)
        many_at_once = model.write(prompts * 3, 40)
        letters = model.judge(asked)
    with open_transformers(world["model"], execution) as model:
        expected = model.write(prompts, 40)
        expected_letters = model.judge(asked)
        target = target_of(model.network)
    end = tokenizer.token_to_id(tokenizer.chat_format.end)
    ties = 0
    for index, ids in enumerate(prompts):
        decoded = Prompt(str(index), "qa", [], ids, 40)
        for answer in (written[index], *many_at_once[index :: len(prompts)]):
            ties += count_near_ties(target, decoded, answer, expected[index], end, "float32")
    print(f"{ties} of {4 * sum(map(len, expected))} new tokens were decided by a near tie")
    for judged, own_judged in zip(letters, expected_letters, strict=True):
        scores = [score for score, _ in own_judged]
        assert [score for score, _ in judged] == pytest.approx(scores, abs=1e-4)
    differing = 0
    for row, wanted in zip(theirs["evaluate"], own["evaluate"], strict=True):
        differing += row["prediction"] != wanted["prediction"]
        assert row["reference_nats"] == pytest.approx(wanted["reference_nats"], rel=1e-5)
    assert differing == 0 or ties > 0
    for scoring in ("letter", "text"):
        gaps = []
        for row, wanted in zip(theirs[scoring], own[scoring], strict=True):
            assert row["picked"] == wanted["picked"]
            for letter, score in wanted["loglikelihood"].items():
                gaps.append(abs(row["loglikelihood"][letter] - score))
        print(f"{len(gaps)} log-likelihoods by {scoring} differ by {max(gaps):.2g} nats at most")
        assert max(gaps) < 1e-4
