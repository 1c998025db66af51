"""A Llama-3 and a Qwen3 with one tokenizer go through the stages by their own chat template."""

import json

import pytest
import torch

from soaes.data import chat, chat_choice
from soaes.data.jsonl import read_jsonl, write_jsonl
from soaes.data.settings import PackingSettings
from soaes.decode.settings import SamplingSettings, SpeculativeSettings
from soaes.metrics import exams
from soaes.model import checkpoint
from soaes.model.causal_lm import CausalLM
from soaes.model.distilled_lm import DistilledLM
from soaes.model.output_head import OutputHead
from soaes.model.settings import ConstantSchedule, OptimizerSettings, ProbeSettings
from soaes.model.soft_targets import Hidden
from soaes.stages import evaluate, prepare, speculate, teach, trace, train
from tests.helpers.models import LLAMA3_TEMPLATE, LLAMA3_TOKENS, save_llama3_tokenizer, save_model

ASKED = dict(
    sampling=SamplingSettings(0.0, 1.0),
    prompts={"qa": 2},
    max_new_tokens={"qa": 12},
    seed=0,
    dtype="float32",
)
OPTIM = OptimizerSettings(
    lr=1e-2,
    global_batch_size=4,
    epochs=3,
    schedule=ConstantSchedule(warmup=0.05),
    precision="32-true",
)


def conversation(index):
    question = {"role": "user", "content": f"第{index}家？"}
    return [question, {"role": "assistant", "content": f"在{index}号。"}]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Questions, rows of them, a target, and a draft with fewer vocabulary rows."""
    root = tmp_path_factory.mktemp("own")
    for split, numbers in (("train", range(40)), ("dev", range(3)), ("test", range(3))):
        samples = [{"id": f"q{i}", "task": "qa", "messages": conversation(i)} for i in numbers]
        write_jsonl(root / "qa" / f"{split}.jsonl", samples)
    tokenizer = save_llama3_tokenizer(root / "tokenizer")
    for name, family, rows in (("target", "llama", 280), ("draft", "qwen3", None)):
        save_model(root / name, family, tokenizer, rows)
        chat_choice.write_format(root / name, "auto")
    (root / "rows").mkdir()
    prepare.pack(root, root / "target", ["qa"], None, 96, PackingSettings(), out=root / "rows")
    for name in ("sft", "soft", "distilled", "trace", "predict", "accept", "scores"):
        (root / name).mkdir()
    train.sft(root / "target", root / "rows", CausalLM, OPTIM, 0, out=root / "sft")
    probe = ProbeSettings(taus=[2.0], rows=2, tokens=20)
    teach.teach(root / "sft", root / "rows", Hidden(), seed=0, probe=probe, out=root / "soft")
    train.distill(
        root / "draft",
        root / "rows",
        root / "soft",
        0.5,
        2.0,
        DistilledLM,
        OPTIM,
        0,
        out=root / "distilled",
    )
    return root


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_training_learns_to_answer_in_the_models_own_words(root):
    for name in ("sft", "distilled"):
        learnt = metrics(root / name)
        assert learnt["val/perplexity"] < learnt["val/perplexity_before"] / 4
    evaluate.evaluate(root / "sft", root, "dev", None, {"qa": 16}, out=root / "scores")
    assert metrics(root / "scores")["num_cut"] == 0, "it does not stop behind its answer"
    for row in read_jsonl(root / "scores" / "predictions.jsonl"):
        assert "<|" not in row["prediction"]


def test_a_trained_folder_says_how_it_writes(root):
    """As the model's own folder did; so a server stops where training did."""
    folder = root / "sft"
    assert (folder / "chat_template.jinja").read_text() == LLAMA3_TEMPLATE
    assert (
        chat.load_tokenizer(folder).chat_format == chat.load_tokenizer(root / "target").chat_format
    )
    assert chat.tokenizer_digest(folder) == chat.tokenizer_digest(root / "distilled")
    _, eos = chat.chat_tokenizer(folder)
    model = checkpoint.load(folder)
    assert model.generation_config.eos_token_id == model.config.eos_token_id == eos
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["eos_token"] == LLAMA3_TOKENS[-1]
    assert chat_choice.find_format(folder, "own") == chat.load_tokenizer(folder).chat_format


def test_a_draft_of_another_family_is_judged_and_accepted(root):
    trace.target_trace(root / "sft", root, split="dev", out=root / "trace", **ASKED)
    trace.predict_acceptance(root / "trace", root / "distilled", max_n=3, out=root / "predict")
    speculate.acceptance(
        root / "sft",
        root,
        decode=SpeculativeSettings(3),
        draft=root / "distilled",
        prediction=root / "predict",
        out=root / "accept",
        **ASKED,
    )
    measured, predicted = metrics(root / "accept"), metrics(root / "predict")
    assert measured["mean_acceptance_length"] > 1.5, "the draft has learnt nothing"
    assert measured["mean_acceptance_length"] == pytest.approx(
        predicted["mean_acceptance_length_n3"], rel=0.5
    )


def test_rows_of_one_format_are_not_those_of_another(root, tmp_path):
    """The same tokens in ChatML's layout would train what is never asked."""
    other = save_model(tmp_path / "other", "qwen3", root / "tokenizer")
    template = other / "chat_template.jinja"
    template.write_text(LLAMA3_TEMPLATE.replace("| trim", ""))
    chat_choice.write_format(other, "auto")
    (out := tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="tokenizer"):
        train.sft(other, root / "rows", CausalLM, OPTIM, 0, out=out)


def test_an_untrained_model_of_the_same_tokenizer_can_be_made(root):
    model = checkpoint.create(root / "target", 1, 32, 1, 1, 64, seed=0)
    words = chat.load_tokenizer(root / "target")
    assert model.config.eos_token_id == words.token_to_id(LLAMA3_TOKENS[-1])
    assert model.config.pad_token_id == words.token_to_id(LLAMA3_TOKENS[0])
    assert torch.isfinite(model(torch.tensor([[1, 2]])).logits).all()


@torch.inference_mode()
def test_an_exam_is_read_as_a_text_is_with_its_first_token(root):
    network = checkpoint.load(root / "target").eval()
    words = chat.load_tokenizer(root / "target")
    reader = exams.Reader(exams.ModelJudge(network, OutputHead.of(network).logits, 2), words)
    ((score, _),) = reader.judge([("甲：", "乙")])
    first = words.token_to_id(LLAMA3_TOKENS[1])
    prompt, answer = (words.encode(text, add_special_tokens=False).ids for text in ("甲：", "乙"))
    logs_TV = network(torch.tensor([[first, *prompt, *answer]])).logits[0].log_softmax(-1)
    logs_TV = logs_TV[len(prompt) : -1]
    assert score == pytest.approx(logs_TV[range(len(answer)), answer].sum().item(), abs=1e-4)
