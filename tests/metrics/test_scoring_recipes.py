"""Each scoring recipe reproduces the packages it is named after; laws stated on toys."""

import math
import random

import pytest

from soaes.metrics import rouge_summary
from soaes.metrics.scoring_recipes import (
    SCORING_RECIPES,
    TextPair,
    corpus_bleu,
    first_clause,
)

MEANS = [name for name in SCORING_RECIPES if name != "sacrebleu"]
CLAUSE = "the reform of state owned enterprises 国有企业改革三年行动方案 明确了主要目标"


def scores(recipe, *pairs):
    return SCORING_RECIPES[recipe].score([TextPair(*pair) for pair in pairs])


def rounded(recipe, *pairs):
    metrics = scores(recipe, *pairs).metrics
    return [round(value, 4) for value in metrics.values()]


# ---------------------------------------------------------------- the packages' own values

MIXED = (
    "2023年中央企业实现营业收入39.8万亿元，ROE为6.6%。",
    "2023年，中央企业营业收入达到39.8万亿元，净资产收益率（ROE）6.6%。",
)
SENTENCES = (
    "一是优化国有资本布局。二是完善公司治理。三是推进混合所有制改革。",
    "一是推进混合所有制改革；二是优化国有资本布局和结构调整；三是完善中国特色现代企业制度。",
)
REPEATED = ("改革改革改革改革改革", "深化国有企业改革")


ENGLISH = (
    "Revenue grew by 39.8 percent, as the board had planned.",
    "Revenue grew by 39.8 percent in 2023, as the board of directors had planned.",
)
# Rounded to 4 decimals. `llama-factory`: the published values of LLaMA-Factory's recipe. The
# others: computed once with the packages themselves, jieba 0.42.1, rouge 1.0.1, rouge-chinese
# 1.0.3, nltk 3.10.4 and sacrebleu 2.6.0, called as each project calls them.
FIGURES = [  # recipe, pairs, Rouge-1, Rouge-2 and Rouge-L where it has them, BLEU
    pytest.param("llama-factory", [MIXED], [77.4194, 40.0, 75.0, 48.0187], id="ours, numbers"),
    pytest.param(
        "llama-factory", [SENTENCES], [70.5882, 28.5714, 32.4324, 43.2084], id="ours, sentences"
    ),
    pytest.param("llama-factory", [REPEATED], [50.0, 0.0, 25.0, 8.3922], id="ours, repeated"),
    pytest.param("ms-swift", [MIXED], [80.0, 47.0588, 80.0, 14.7853], id="ms-swift, numbers"),
    pytest.param(
        "ms-swift", [SENTENCES], [70.5882, 28.5714, 35.2941, 18.5366], id="ms-swift, sentences"
    ),
    pytest.param("ms-swift", [REPEATED], [50.0, 0.0, 50.0, 10.6822], id="ms-swift, repeated"),
    pytest.param(
        "ms-swift",
        [MIXED, SENTENCES, REPEATED],
        [66.8627, 25.2101, 55.098, 14.668],
        id="ms-swift, mean of three",
    ),
    pytest.param("ms-swift-old", [MIXED], [80.0, 47.0588, 80.0, 48.0187], id="old, numbers"),
    pytest.param("ms-swift-old", [REPEATED], [50.0, 0.0, 50.0, 8.3922], id="old, repeated"),
    pytest.param("opencompass", [MIXED], [87.5, 57.1429, 87.5, 0.0], id="opencompass, numbers"),
    pytest.param(
        "opencompass", [SENTENCES], [70.9677, 34.4828, 32.2581, 0.0], id="opencompass, sentences"
    ),
    pytest.param(
        "opencompass", [ENGLISH], [100.0, 100.0, 100.0, 45.5727], id="opencompass, English"
    ),
    pytest.param("sacrebleu", [MIXED], [32.0206], id="sacrebleu, numbers"),
    pytest.param("sacrebleu", [MIXED, SENTENCES, REPEATED], [37.2032], id="sacrebleu, corpus"),
]


@pytest.mark.parametrize("recipe, pairs, expected", FIGURES)
def test_a_recipe_reproduces_the_packages_figures(recipe, pairs, expected):
    assert rounded(recipe, *pairs) == expected


# ---------------------------------------------------------------- laws


@pytest.mark.parametrize("recipe", SCORING_RECIPES)
def test_an_answer_that_is_the_reference_scores_100(recipe):
    metrics = scores(recipe, (CLAUSE, CLAUSE)).metrics
    assert metrics and all(value == pytest.approx(100, abs=1e-5) for value in metrics.values())


@pytest.mark.parametrize("recipe", SCORING_RECIPES)
def test_texts_without_a_common_character_score_zero(recipe):
    metrics = scores(recipe, ("今天天气很好", "混合所有制经济")).metrics
    assert set(metrics.values()) == {0.0}


@pytest.mark.parametrize("recipe", SCORING_RECIPES)
def test_the_order_of_the_pairs_does_not_matter(recipe):
    pairs = [MIXED, SENTENCES, REPEATED, ("", "改革"), ("国企", "国企改革"), (CLAUSE, CLAUSE)]
    shuffled = random.Random(0).sample(pairs, len(pairs))
    assert shuffled != pairs
    assert scores(recipe, *shuffled) == scores(recipe, *pairs)


@pytest.mark.parametrize(
    "recipe, num_scored, share",
    [
        pytest.param("llama-factory", 2, 50, id="llama-factory"),
        pytest.param("ms-swift", 2, 50, id="ms-swift"),
        pytest.param("ms-swift-old", 1, 100, id="ms-swift-old leaves it out"),
        pytest.param("opencompass", 2, 50, id="opencompass"),
    ],
)
def test_an_empty_answer_is_scored_or_left_out_as_the_recipe_says(recipe, num_scored, share):
    result = scores(recipe, (CLAUSE, CLAUSE), ("", CLAUSE))
    assert (result.num_scored, result.num_left_out) == (num_scored, 2 - num_scored)
    assert result.metrics["rouge1"] == pytest.approx(share, abs=1e-5)


@pytest.mark.parametrize(
    "recipe, num_left_out",
    [
        pytest.param("llama-factory", 0, id="llama-factory"),
        pytest.param("ms-swift", 1, id="ms-swift"),
        pytest.param("ms-swift-old", 1, id="ms-swift-old"),
        pytest.param("opencompass", 0, id="opencompass"),
        pytest.param("sacrebleu", 0, id="sacrebleu"),
    ],
)
def test_an_empty_reference_scores_zero_or_nothing(recipe, num_left_out):
    result = scores(recipe, ("改革", ""))
    assert result.num_left_out == num_left_out
    assert set(result.metrics.values()) == ({None} if num_left_out else {0.0})


def test_periods_alone_have_rouge_zero_in_ms_swift_and_are_left_out_of_the_old():
    assert scores("ms-swift", (".", "改革")).metrics["rouge1"] == 0
    assert scores("ms-swift-old", (".", "改革")).num_left_out == 1


def test_an_empty_answer_shortens_the_corpus():
    pairs = [TextPair("国有企业改革", "国有企业改革"), TextPair("", "国有企业改革")]
    assert corpus_bleu(pairs, "zh") == pytest.approx(100 * math.exp(1 - 12 / 6))


def test_corpus_bleu_pools_the_ngrams_and_is_no_mean_of_sentences():
    pairs = [("国有企业", "国有企业"), ("改革", "改制")]
    pooled = 5 / 6 * 3 / 4 * 2 / 2 * 1 / 1  # n-grams of both that match, n = 1 .. 4
    assert scores("sacrebleu", *pairs).metrics["corpus_bleu"] == pytest.approx(100 * pooled**0.25)
    singles = [scores("sacrebleu", pair).metrics["corpus_bleu"] for pair in pairs]
    assert sum(singles) / 2 < 60


def test_ms_swift_takes_bleu_over_words_and_the_old_over_characters():
    pair = ("国有企业改革方案", "国有企业改制方案")
    by_character = scores("llama-factory", pair).metrics["bleu4"]
    assert scores("ms-swift-old", pair).metrics["bleu4"] == by_character
    assert scores("ms-swift", pair).metrics["bleu4"] < by_character


# ---------------------------------------------------------------- Rouge of summaries


def test_sentences_end_at_every_period():
    assert rouge_summary.score("a b . c", "a b c")["rouge2"] == pytest.approx(100, abs=1e-5)
    assert rouge_summary.score("39.8", "39.1")["rouge1"] == pytest.approx(50, abs=1e-5)
    assert rouge_summary.score(".", "a") is None and rouge_summary.score("a", "") is None


def test_rouge_l_unites_what_pairs_of_sentences_share():
    """The example of Lin 2004, section 3.2: w1 w2 of one sentence, w1 w3 w5 of the other."""
    scores = rouge_summary.score("1 2 6 7 8 . 1 3 8 9 5", "1 2 3 4 5")
    precision, recall = 4 / 8, 4 / 5  # different words: 1 2 6 7 8 3 9 5
    expected = 2 * precision * recall / (precision + recall)
    assert scores["rougeL"] == pytest.approx(100 * expected, abs=1e-5)


def test_common_words_are_those_of_the_plain_table():
    draw = random.Random(0)
    for _ in range(300):
        left = draw.choices("abcde", k=draw.randint(1, 12))
        right = draw.choices("abcde", k=draw.randint(1, 12))
        assert rouge_summary.common_words(left, right) == _plain_common_words(left, right)


def _plain_common_words(left, right):
    lengths = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, left_word in enumerate(left, start=1):
        for j, right_word in enumerate(right, start=1):
            if left_word == right_word:
                lengths[i][j] = lengths[i - 1][j - 1] + 1
            else:
                lengths[i][j] = max(lengths[i - 1][j], lengths[i][j - 1])

    def back(i, j):
        if i == 0 or j == 0:
            return set()
        if left[i - 1] == right[j - 1]:
            return back(i - 1, j - 1) | {left[i - 1]}
        if lengths[i - 1][j] > lengths[i][j - 1]:
            return back(i - 1, j)
        return back(i, j - 1)

    return back(len(left), len(right))


def test_long_reports_are_scored():
    words = " ".join(str(index) for index in range(3000))
    assert rouge_summary.score(words, words)["rougeL"] == pytest.approx(100, abs=1e-5)


# ---------------------------------------------------------------- OpenCompass


@pytest.mark.parametrize(
    "text, clause",
    [
        pytest.param("收入39.8万亿元", "收入39", id="ends at a decimal point"),
        pytest.param("第一行\n第二行", "第一行", id="ends at a newline"),
        pytest.param("改革，方案。", "改革方案", id="Chinese punctuation goes"),
        pytest.param("The reform  of a firm", "reform of firm", id="articles and blanks go"),
        pytest.param("\n改革", "", id="nothing is left"),
    ],
)
def test_opencompass_scores_the_first_clause(text, clause):
    assert first_clause(text) == clause


# ---------------------------------------------------------------- stamps


@pytest.mark.parametrize("name", SCORING_RECIPES)
def test_a_stamp_says_all_that_makes_two_scores_comparable(name):
    recipe = SCORING_RECIPES[name]
    stamp = recipe.stamp()
    assert {"bleu", "blank", *recipe.packages} <= set(stamp)
    assert ("rouge" in stamp) == (name in MEANS)


@pytest.mark.parametrize(
    "name, tokenizer",
    [
        pytest.param("sacrebleu", "zh", id="sacrebleu"),
        pytest.param("opencompass", "13a", id="opencompass"),
    ],
)
def test_the_stamp_has_sacrebleus_own_signature(name, tokenizer):
    from sacrebleu.metrics import BLEU

    metric = BLEU(tokenize=tokenizer)
    metric.corpus_score(["改革"], [["改革"]])
    settings, _, version = str(metric.get_signature()).rpartition("|version:")
    stamp = SCORING_RECIPES[name].stamp()
    assert settings in stamp["bleu"] and stamp["sacrebleu"] == version


def test_no_two_recipes_have_one_definition():
    definitions = [tuple(recipe.definition.items()) for recipe in SCORING_RECIPES.values()]
    titles = [recipe.title for recipe in SCORING_RECIPES.values()]
    assert len(set(definitions)) == len(set(titles)) == len(SCORING_RECIPES)
