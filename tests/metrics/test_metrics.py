"""The scores reproduce the recipe that Chinese fine-tuning uses most; laws stated on toys."""

import os
import random
import subprocess
import sys

import pytest
from rouge_chinese import Rouge

from soaes.metrics import bleu, rouge
from soaes.metrics.scoring_info import scoring_info

# Computed once with the packages themselves: jieba 0.42.1, rouge-chinese 1.0.3, nltk 3.10.4;
# rounded to 4 decimals.
FIGURES = [  # name, prediction, reference, rouge1, rouge2, rougeL, bleu
    (
        "identical",
        "国有企业改革三年行动方案明确了主要目标。",
        "国有企业改革三年行动方案明确了主要目标。",
        100.0,
        100.0,
        100.0,
        100.0,
    ),
    (
        "short_vs_long",
        "国务院国资委。",
        "国务院国有资产监督管理委员会代表国家履行出资人职责。",
        30.7692,
        0.0,
        30.7692,
        3.1329,
    ),
    ("no_overlap", "今天天气很好。", "混合所有制经济发展迅速", 0.0, 0.0, 0.0, 0),
    ("space_pred", "   ", "国有资本投资公司", 0.0, 0.0, 0.0, 0),
    ("one_char_same", "是", "是", 100.0, 0.0, 100.0, 35.3553),
    (
        "mixed_en_num",
        "2023年中央企业实现营业收入39.8万亿元，ROE为6.6%。",
        "2023年，中央企业营业收入达到39.8万亿元，净资产收益率（ROE）6.6%。",
        77.4194,
        40.0,
        75.0,
        48.0187,
    ),
    (
        "multi_sentence",
        "一是优化国有资本布局。二是完善公司治理。三是推进混合所有制改革。",
        "一是推进混合所有制改革；二是优化国有资本布局和结构调整；三是完善中国特色现代企业制度。",
        70.5882,
        28.5714,
        32.4324,
        43.2084,
    ),
    ("repetition", "改革改革改革改革改革", "深化国有企业改革", 50.0, 0.0, 25.0, 8.3922),
]


@pytest.mark.parametrize(
    "name, prediction, reference, rouge1, rouge2, rougeL, expected",
    FIGURES,
    ids=lambda v: str(v)[:14],
)
def test_scores_reproduce_the_reference_figures(
    name, prediction, reference, rouge1, rouge2, rougeL, expected
):
    scores = rouge.score(prediction, reference)
    assert [round(scores[k], 4) for k in ("rouge1", "rouge2", "rougeL")] == [rouge1, rouge2, rougeL]
    assert round(bleu.score(prediction, reference), 4) == expected


@pytest.mark.parametrize(
    "prediction, reference",
    [("", "改革"), ("改革", ""), ("", ""), (" \n\t", "改革"), ("改革", "\u3000")],
)
def test_a_blank_side_scores_zero(prediction, reference):
    assert rouge.score(prediction, reference) == {"rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0}
    assert bleu.score(prediction, reference) == 0.0


def test_rouge_l_is_the_packages_on_random_texts():
    draw = random.Random(0)
    for _ in range(50):
        left, right = (
            "".join(draw.choices("国资改革。！\n ”a1", k=draw.randint(1, 40))) + "完"
            for _ in range(2)
        )
        theirs = Rouge(metrics=["rouge-l"]).get_scores(rouge._spaced(left), rouge._spaced(right))[
            0
        ]["rouge-l"]["f"]
        assert rouge.score(left, right)["rougeL"] == pytest.approx(100 * theirs, abs=1e-9)


def test_long_reports_are_scored():
    report = "国有企业改革三年行动方案明确了主要目标。" * 1000
    assert rouge.score(report, report + "完")["rougeL"] > 99
    assert rouge.common_length(list("ab" * 5000), list("ba" * 5000)) == 9999


def test_segmenting_leaves_no_shared_cache_and_prints_nothing(tmp_path):
    code = "from soaes.metrics import rouge; rouge.score('国有企业', '国有资本')"
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], check=False, env=env, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr, list(tmp_path.iterdir())) == (
        0,
        b"",
        b"",
        [],
    )


def test_the_stamp_names_recipe_and_versions():
    assert {"rouge", "bleu", "jieba", "rouge-chinese", "nltk"} <= set(scoring_info())
