"""Files of every project in use are read; what cannot be scored is refused with its place."""

import json

import pytest

from soaes.metrics.prediction_files import FieldNames, read_predictions
from soaes.metrics.scoring_recipes import TextPair

PAIRS = [TextPair("国企", "国有企业"), TextPair("", "改革")]


def lines(*records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def records(prediction, reference, **more):
    return [{prediction: pair.prediction, reference: pair.reference, **more} for pair in PAIRS]


def written(tmp_path, content):
    path = tmp_path / "predictions.jsonl"
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "content, names",
    [
        pytest.param(
            lines(*records("prediction", "reference", id="0")), "prediction reference", id="ours"
        ),
        pytest.param(
            lines(*records("predict", "label", prompt="p")), "predict label", id="LLaMA-Factory"
        ),
        pytest.param(
            lines(*records("response", "labels", logprobs=None)), "response labels", id="ms-swift"
        ),
        pytest.param(
            json.dumps(dict(enumerate(records("prediction", "gold", origin_prompt=[])))),
            "prediction gold",
            id="OpenCompass",
        ),
        pytest.param(
            json.dumps(dict(enumerate(records("prediction", "gold"))), indent=4),
            "prediction gold",
            id="OpenCompass, indented",
        ),
        pytest.param(
            json.dumps(records("predict", "label"), indent=2), "predict label", id="an array"
        ),
        pytest.param(
            "\ufeff" + lines(*records("predict", "label")) + "\n", "predict label", id="BOM"
        ),
    ],
)
def test_the_formats_in_use_are_read(tmp_path, content, names):
    predictions = read_predictions(written(tmp_path, content))
    assert predictions.pairs == PAIRS
    assert predictions.fields == FieldNames(*names.split())
    assert (predictions.num_blank("prediction"), predictions.num_blank("reference")) == (1, 0)


def test_other_names_are_given(tmp_path):
    path = written(tmp_path, lines(*records("output", "target", predict="x", label="y")))
    assert read_predictions(path, FieldNames("output", "target")).pairs == PAIRS


def test_some_records_of_a_file_are_scored(tmp_path):
    rows = records("predict", "label")
    rows[0]["split"], rows[1]["split"] = "test", "unseen"
    path = written(tmp_path, lines(*rows, {"split": "dev", "seed": 0}))
    chosen = read_predictions(path, only={"split": "unseen"})
    assert (chosen.pairs, chosen.num_records, chosen.splits) == (PAIRS[1:], 3, {"unseen": 1})
    with pytest.raises(ValueError, match="none of 3 records has seed=1: seed is None, 0"):
        read_predictions(path, only={"seed": "1"})


GOOD = {"predict": "国企", "label": "国有企业"}


@pytest.mark.parametrize(
    "content, message",
    [
        pytest.param(
            lines(GOOD, {"predict": "a"}), "line 2: no field label; it has predict", id="no field"
        ),
        pytest.param(lines(GOOD, GOOD | {"label": None}), "line 2: label is null", id="null"),
        pytest.param(
            lines(GOOD | {"predict": 3}), "line 1: predict is int; one text", id="a number"
        ),
        pytest.param(
            lines(GOOD | {"label": ["a", "b"]}), "label is list; one text", id="several references"
        ),
        pytest.param(lines(GOOD) + '{"predict": a}\n', "line 2: broken JSON", id="broken line"),
        pytest.param(lines(GOOD) + "[1]\n", "line 2: not a JSON object", id="no record"),
        pytest.param(
            json.dumps({"0": GOOD, "7": {"label": "a"}}),
            "record 7: no field predict",
            id="a record by key",
        ),
        pytest.param("", "empty file", id="empty"),
        pytest.param("[]", "no records", id="an empty array"),
        pytest.param(
            lines({"answer": "A"}),
            r"has the fields answer, .*predict/label \(LLaMA-Factory\)",
            id="unknown names",
        ),
        pytest.param(
            lines({"prediction": "a", "reference": "b", "gold": "c"}),
            "has prediction/reference and prediction/gold: name them with --prediction",
            id="two pairs of names",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused_with_its_place(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read_predictions(written(tmp_path, content))


def test_a_missing_file_and_a_foreign_encoding_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_predictions(tmp_path / "none.jsonl")
    path = tmp_path / "gbk.jsonl"
    path.write_bytes((lines(GOOD) * 20).encode("gbk"))
    with pytest.raises(ValueError, match="not UTF-8 .*iconv"):
        read_predictions(path)


def test_many_problems_are_counted_and_some_shown(tmp_path):
    content = lines(GOOD, *[{"predict": "a"}] * 7)
    with pytest.raises(ValueError, match="7 of 8 records cannot be scored") as refusal:
        read_predictions(written(tmp_path, content))
    assert str(refusal.value).count("no field label") == 5
    assert str(refusal.value).endswith("and 2 more")
