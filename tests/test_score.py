"""The command line of soaes.score: a table for people, JSON for machines, errors with a way out."""

import json
import os
import subprocess
import sys

import pytest

from soaes import score
from soaes.metrics.prediction_files import FieldNames, PredictionFile
from soaes.metrics.scoring_recipes import METRICS, SCORING_RECIPES, TextPair

RECORD = '{"predict": "国有企业改革方案", "label": "国有企业改革方案"}\n'
EMPTY = '{"predict": "", "label": "改革"}\n'


def run(*words, content=RECORD + EMPTY):
    return subprocess.run(
        [sys.executable, "-m", "soaes.score", *words],
        input=content,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )


@pytest.fixture(scope="module")
def predictions():
    pairs = [TextPair("国有企业改革方案", "国有企业改革方案"), TextPair("", "改革")]
    return PredictionFile(FieldNames("predict", "label"), pairs, 3, {"test": 1, "unseen": 1})


@pytest.fixture(scope="module")
def scores(predictions):
    return {name: recipe.score(predictions.pairs) for name, recipe in SCORING_RECIPES.items()}


def test_each_recipe_has_a_column_and_its_definition(predictions, scores):
    lines = score.table("a.jsonl", predictions, scores, 80)
    assert lines[:3] == [
        "a.jsonl: 2 of 3 records, answers in predict, references in label",
        "blank answers: 1, blank references: 0",
        "splits are scored together: test 1, unseen 1; --only split=test takes one",
    ]
    header = lines[4]
    assert header.split("  ")[-1].strip() == "sacreBLEU"
    starts = [header.index(recipe.title) for recipe in SCORING_RECIPES.values()]
    assert starts == sorted(set(starts))
    rouge1 = next(line for line in lines if line.startswith("Rouge-1"))
    assert rouge1.split()[1:] == ["50.00", "50.00", "100.00", "50.00", "-"]
    assert next(line for line in lines if line.startswith("left out")).split()[2:] == list("00100")
    for name in SCORING_RECIPES:
        assert any(f"--recipe {name}" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_json_has_every_number_with_its_stamp(predictions, scores):
    found = json.loads(json.dumps(score.report("a.jsonl", predictions, scores)))
    assert (found["records"], found["selected"]) == (3, 2)
    assert found["splits"] == {"test": 1, "unseen": 1}
    assert found["blank"] == {"prediction": 1, "reference": 0}
    assert found["fields"] == {"prediction": "predict", "reference": "label"}
    for name, recipe in SCORING_RECIPES.items():
        result = found["recipes"][name]
        assert set(result["metrics"]) <= set(METRICS)
        assert result["scored"] + result["left_out"] == 2
        assert result["stamp"] == recipe.stamp()


def test_the_command_reads_a_file_and_the_standard_input(tmp_path):
    path = tmp_path / "predictions.jsonl"
    path.write_text(RECORD + EMPTY, encoding="utf-8")
    from_file = run(str(path), "--recipe", "llama-factory")
    assert from_file.returncode == 0 and "LLaMA-Factory" in from_file.stdout
    assert "OpenCompass" not in from_file.stdout and "(corpus)" not in from_file.stdout
    assert "2 of 2 records" in from_file.stdout
    from_pipe = run("-", "--recipe", "sacrebleu", "--json")
    assert list(json.loads(from_pipe.stdout)["recipes"]) == ["sacrebleu"]
    assert from_file.stderr == from_pipe.stderr == ""


@pytest.mark.parametrize(
    "words, content, message",
    [
        pytest.param(["-"], '{"predict": "a"}\n', "standard input: the first record", id="names"),
        pytest.param(["-"], RECORD + '{"label": "a"}\n', "line 2: no field predict", id="a field"),
        pytest.param(["-", "--prediction", "a"], RECORD, "--reference is missing", id="one name"),
        pytest.param(["none.jsonl"], "", "none.jsonl: there is no such file", id="no file"),
        pytest.param(["-", "--only", "split"], RECORD, "--only split: write FIELD=", id="only"),
        pytest.param(["-", "--recipe", "best"], RECORD, "invalid choice: 'best'", id="recipe"),
    ],
)
def test_errors_end_the_command_with_one_message(words, content, message):
    finished = run(*words, content=content)
    assert finished.returncode != 0 and finished.stdout == ""
    assert message in finished.stderr and "Traceback" not in finished.stderr
