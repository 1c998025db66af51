"""Exams are the harness's own prompts; the answer is the letter of highest log-likelihood."""

import json
import math
from random import Random

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import Qwen2Config, Qwen2ForCausalLM

from soaes.data.curation import exam_files
from soaes.metrics import exams
from soaes.pipeline.runtime import Execution
from soaes.stages.evaluate import benchmark


def tiny(folder, context=512):
    """A random model that reads single bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(
        models.BPE(vocab={character: index for index, character in enumerate(alphabet)}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    shape = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    torch.manual_seed(0)
    sizes = {"vocab_size": 256, "intermediate_size": 128, "max_position_embeddings": context}
    Qwen2ForCausalLM(Qwen2Config(**shape, **sizes, initializer_range=0.2)).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def question(subject, index):
    return {
        "subject": subject,
        "question": f"第{index}问",
        **dict(zip("ABCD", "甲乙丙丁", strict=True)),
        "answer": "ABCD"[index % 4],
    }


def exam(folder, name, subjects, count=4):
    splits = {"dev": range(2), "test": range(2, 2 + count)}
    asked = {
        split: [question(subject, index) for subject in subjects for index in numbers]
        for split, numbers in splits.items()
    }
    exam_files.write(folder / "exam", name, asked)
    assert exam_files.read(folder / "exam")[name] == asked


def taken(model, documents, out, shots=1, batch=3, limit=None, scoring="letter"):
    out.mkdir(parents=True, exist_ok=True)
    execution = Execution(micro_batch_size=batch)
    benchmark(model, documents, shots, limit, scoring, execution=execution, out=out)
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    return json.loads((out / "metrics.json").read_text()), rows


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("model"))


def test_three_exams_in_one_start(model, tmp_path):
    exam(tmp_path, "cmmlu", ["agronomy", "arts"])
    exam(tmp_path, "ceval", ["law"], 8)
    exam(tmp_path, "domain", ["国资监管"])
    metrics, rows = taken(model, tmp_path, tmp_path / "out")
    assert {key: metrics[f"{key}_questions"] for key in ("cmmlu", "ceval", "domain")} == {
        "cmmlu": 8,
        "ceval": 8,
        "domain": 4,
    }
    assert len(rows) == 20 and all(
        row["loglikelihood"][row["picked"]] == max(row["loglikelihood"].values()) for row in rows
    )
    assert (
        metrics["average"] == (metrics["cmmlu"] + metrics["ceval"]) / 2 and metrics["chance"] == 25
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "metrics.json",
        "predictions.jsonl",
    ]


def test_log_likelihoods_are_the_models_own(model, tmp_path):
    exam(tmp_path, "cmmlu", ["agronomy"])
    _, rows = taken(model, tmp_path, tmp_path / "out")
    body = "{}\nA. 甲\nB. 乙\nC. 丙\nD. 丁\n答案："
    start = "以下是关于农学的单项选择题，请直接给出正确答案的选项。\n\n"
    prompt = (
        start + body.format("第0问") + " A\n\n" + body.format("第2问")
    )  # upstream's words, one shot
    network, read = (
        Qwen2ForCausalLM.from_pretrained(model),
        Tokenizer.from_file(str(model / "tokenizer.json")),
    )
    for letter, score in rows[0]["loglikelihood"].items():
        ids = torch.tensor([read.encode(f"{prompt} {letter}").ids])
        with torch.no_grad():
            scores = network(ids).logits.log_softmax(-1)[0, -3:-1]
        assert scores.gather(1, ids[0, -2:, None]).sum().item() == pytest.approx(
            score, abs=1e-4
        )  # " " and the letter


def sized_exam(folder, name, right, count=60):
    """An exam of nonsense whose right option is the shortest (min) or the longest (max)."""
    rng = Random(name)
    questions = []
    for index in range(count):
        lengths = rng.sample(range(2, 13), 4)
        options = ["".join(rng.choices("国资委监管企业经营预算薪酬法律责任", k=n)) for n in lengths]
        letter = "ABCD"[lengths.index(right(lengths))]
        texts = dict(zip("ABCD", options, strict=True))
        asked = {"subject": "law", "question": f"第{index}题？", **texts, "answer": letter}
        questions.append(asked)
    exam_files.write(folder / "exam", name, {"dev": [], "test": questions})


def test_length_alone_does_not_answer_an_exam_of_texts(model, tmp_path):
    sized_exam(tmp_path, "cmmlu", min)
    sized_exam(tmp_path, "ceval", max)
    metrics, rows = taken(model, tmp_path, tmp_path / "out", 0, 64, scoring="text")
    for exam in ("cmmlu", "ceval"):  # a sum of log-likelihoods has 95 and 0
        assert 5 < metrics[exam] < 60 and 5 < metrics[f"{exam}_untrained"] < 60
    assert metrics["scoring"] == "text: log-likelihood per character (acc_norm)"
    assert 15 < (metrics["cmmlu"] + metrics["ceval"]) / 2 < 40
    network = Qwen2ForCausalLM.from_pretrained(model)
    read = Tokenizer.from_file(str(model / "tokenizer.json"))
    asked = exam_files.read(tmp_path / "exam")
    first = asked["cmmlu"]["test"][0]
    (row,) = [row for row in rows if (row["exam"], row["question"]) == ("cmmlu", first["question"])]
    for letter, score in row["score"].items():
        prompt = read.encode(f"{first['question']}\n答案：\n").ids
        ids = torch.tensor([prompt + read.encode(first[letter]).ids])
        with torch.no_grad():
            scores = network(ids).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
        answer = scores.gather(1, ids[0, len(prompt) :, None]).sum().item()
        assert row["loglikelihood"][letter] == pytest.approx(answer, abs=1e-3)
        assert score == pytest.approx(answer / len(first[letter]), abs=1e-3)
    assert row["picked"] == max(row["score"], key=row["score"].get)


def test_the_batch_changes_no_score(model, tmp_path):
    exam(tmp_path, "ceval", ["law"])
    scores = [
        [
            score
            for row in taken(model, tmp_path, tmp_path / str(batch), batch=batch)[1]
            for score in row["loglikelihood"].values()
        ]
        for batch in (1, 4)
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_subjects_weigh_the_same():
    row = {"exam": "cmmlu", "answer": "A"}
    marks = [("a", "A"), ("b", "A"), ("b", "B"), ("b", "B"), ("b", "B")]
    scores = exams.summary(
        [row | {"subject": subject, "picked": picked} for subject, picked in marks], 5
    )
    assert (
        scores["cmmlu"] == (100 + 25) / 2
        and "ceval" in scores["missing"]
        and "average" not in scores
    )
    assert scores["cmmlu_standard_error"] == pytest.approx(100 * math.sqrt(0.4 * 0.6 / 4))


def test_no_exams_are_no_fault(model, tmp_path):
    metrics, rows = taken(model, tmp_path, tmp_path / "out")
    assert (
        rows == []
        and metrics["missing"] == "no questions of cmmlu and ceval in the data"
        and "cmmlu" not in metrics
    )


def test_a_limit_is_of_each_subject(model, tmp_path):
    exam(tmp_path, "cmmlu", ["agronomy", "arts"])
    metrics, rows = taken(model, tmp_path, tmp_path / "out", limit=1)
    assert metrics["cmmlu_questions"] == 2
    assert {row["subject"] for row in rows} == {"agronomy", "arts"}


@pytest.mark.parametrize(
    "shots, context, message", [(3, 512, "set shots=2"), (1, 100, "reads 100; set fewer shots")]
)
def test_what_does_not_fit_is_an_error(tmp_path, shots, context, message):
    exam(tmp_path, "cmmlu", ["agronomy"])
    with pytest.raises(ValueError, match=message):
        taken(tiny(tmp_path, context), tmp_path, tmp_path / "out", shots=shots)
