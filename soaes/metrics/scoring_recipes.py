"""The ways of computing Chinese Rouge and BLEU that are in use: one text, several numbers.

A scoring recipe says how texts become tokens, which variant of a metric is taken, how it is
smoothed, and what becomes of a blank side. Scores of two recipes are not comparable, so each result
carries its recipe (`ScoringRecipe.stamp`). The first recipe is the one of this project (decision
11); the others are written after the code of the projects that they are named after, with the
packages that those use where that is possible. docs/metrics.md compares them.

Knows pairs of texts: not files, tasks or models.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from soaes.metrics import bleu, rouge, rouge_summary, scoring_info

METRICS = {  # name -> how a table calls it
    "rouge1": "Rouge-1",
    "rouge2": "Rouge-2",
    "rougeL": "Rouge-L",
    "bleu4": "BLEU-4 (mean)",  # of the samples' own BLEU
    "corpus_bleu": "BLEU-4 (corpus)",  # of the n-grams of all samples together
}
ROUGES = ("rouge1", "rouge2", "rougeL")


@dataclass(frozen=True)
class TextPair:
    """An answer and the expected one."""

    prediction: str
    reference: str


PairScores = dict[str, float]
Pairs = Sequence[TextPair]


@dataclass(frozen=True)
class Scores:
    """What a recipe says of some pairs."""

    metrics: dict[str, float | None]  # 0..100; None where every pair was left out
    num_scored: int
    num_left_out: int  # by the recipe's rule for blank sides


@dataclass(frozen=True)
class ScoringRecipe:
    """A way of computing Rouge and BLEU."""

    title: str
    definition: Mapping[str, str]  # rouge, bleu: tokens, variant, smoothing; blank: its rule
    packages: Sequence[str]  # that compute it
    score: Callable[[Pairs], Scores]

    def stamp(self) -> dict[str, str]:
        """Describe the recipe, with the versions of its packages."""
        return scoring_info.stamp(self.definition, self.packages)


# ---------------------------------------------------------------- means over samples


def _mean_scores(
    metrics: Sequence[str], score_pair: Callable[[TextPair], PairScores | None], pairs: Pairs
) -> Scores:
    """Average what `score_pair` says of each pair; a None of it is left out."""
    results = [score_pair(pair) for pair in pairs]
    scored = [scores for scores in results if scores is not None]
    means: dict[str, float | None] = dict.fromkeys(metrics)
    if scored:
        means = {name: statistics.fmean(scores[name] for scores in scored) for name in metrics}
    return Scores(means, num_scored=len(scored), num_left_out=len(pairs) - len(scored))


def _llama_factory(pairs: Pairs) -> Scores:
    def score_pair(pair: TextPair) -> PairScores:
        scores = rouge.score(pair.prediction, pair.reference)
        return scores | {"bleu4": bleu.score(pair.prediction, pair.reference)}

    return _mean_scores((*ROUGES, "bleu4"), score_pair, pairs)


def _ms_swift(pairs: Pairs) -> Scores:
    def score_pair(pair: TextPair) -> PairScores | None:
        predicted = _words_without_spaces(pair.prediction)
        expected = _words_without_spaces(pair.reference)
        if not expected:
            return None
        scores = rouge_summary.score(" ".join(predicted), " ".join(expected))
        if scores is None:  # no word, or periods alone
            scores = dict.fromkeys(ROUGES, 0.0)
        return scores | {"bleu4": bleu.score_tokens(predicted, expected)}

    return _mean_scores((*ROUGES, "bleu4"), score_pair, pairs)


def _words_without_spaces(text: str) -> list[str]:
    words = [word.strip(" ") for word in rouge.cut_words(text)]
    return [word for word in words if word]


def _ms_swift_old(pairs: Pairs) -> Scores:
    def score_pair(pair: TextPair) -> PairScores | None:
        predicted, expected = rouge.cut_words(pair.prediction), rouge.cut_words(pair.reference)
        scores = rouge_summary.score(" ".join(predicted), " ".join(expected))
        if scores is None:
            return None
        characters = bleu.score_tokens(list(pair.prediction), list(pair.reference))
        return scores | {"bleu4": characters}

    return _mean_scores((*ROUGES, "bleu4"), score_pair, pairs)


# ---------------------------------------------------------------- OpenCompass

CLAUSE_END = re.compile(r"[\n.,]")
PUNCTUATION = re.compile(r"[^\w\s]")
ARTICLE = re.compile(r"\b(a|an|the)\b", re.IGNORECASE)


def first_clause(text: str) -> str:
    """Normalise a text as OpenCompass' `general_postprocess` does, which Rouge is taken of.

    Returns:
        The text before the first newline, "." or ",", without punctuation, English articles and
        repeated blanks; "" where nothing is left.
    """
    clause = CLAUSE_END.split(text, maxsplit=1)[0]
    words = ARTICLE.sub("", PUNCTUATION.sub("", clause))
    return " ".join(words.split())


def _opencompass(pairs: Pairs) -> Scores:
    def score_pair(pair: TextPair) -> PairScores:
        predicted = rouge.cut_words(first_clause(pair.prediction))
        expected = rouge.cut_words(first_clause(pair.reference))
        if not predicted or not expected:  # placeholders without a common word
            return dict.fromkeys(ROUGES, 0.0)
        return rouge.score_words(" ".join(predicted), " ".join(expected))

    scores = _mean_scores(ROUGES, score_pair, pairs)
    metrics = scores.metrics | {"corpus_bleu": corpus_bleu(pairs, "13a")}
    return Scores(metrics, scores.num_scored, scores.num_left_out)


# ---------------------------------------------------------------- BLEU of a corpus


def corpus_bleu(pairs: Pairs, tokenizer: str) -> float:
    """Compute BLEU-4 of all pairs together (Papineni et al. 2002), exponential smoothing, 0..100.

    Args:
        pairs: At least one.
        tokenizer: One of sacreBLEU's: `zh` cuts Chinese into characters, `13a` does not.
    """
    from sacrebleu.metrics.bleu import BLEU  # imported on first use: a quarter of a second

    predictions = [pair.prediction for pair in pairs]
    references = [pair.reference for pair in pairs]
    # `force` only silences a warning about texts that look tokenized
    metric = BLEU(tokenize=tokenizer, force=True)
    return float(metric.corpus_score(predictions, [references]).score)


def _sacrebleu(pairs: Pairs) -> Scores:
    metrics: dict[str, float | None] = {"corpus_bleu": corpus_bleu(pairs, "zh")}
    return Scores(metrics, num_scored=len(pairs), num_left_out=0)


# ---------------------------------------------------------------- the recipes

_SUMMARY_ROUGE = (
    'rouge 1.0.1 by its formulas: F1 of different words, sentences end at every ".", '
    "Rouge-L of summaries, x100"
)

SCORING_RECIPES = {
    "llama-factory": ScoringRecipe(
        title="LLaMA-Factory",
        definition=scoring_info.DEFINITION,
        packages=scoring_info.PACKAGES,
        score=_llama_factory,
    ),
    "ms-swift": ScoringRecipe(
        title="ms-swift",
        definition={
            "rouge": f"jieba words without spaces, {_SUMMARY_ROUGE}",
            "bleu": "jieba words without spaces, nltk sentence BLEU-4, smoothing method 3, x100",
            "blank": "an empty prediction scores 0, an empty reference is left out; a side of "
            "periods alone has Rouge 0",
        },
        packages=scoring_info.PACKAGES,
        score=_ms_swift,
    ),
    "ms-swift-old": ScoringRecipe(
        title="ms-swift, old",
        definition={
            "rouge": f"jieba words, {_SUMMARY_ROUGE}",
            "bleu": "characters, nltk sentence BLEU-4, smoothing method 3, x100",
            "blank": "a pair with an empty side is left out, and one with a side of periods "
            "alone, at which ms-swift stopped",
        },
        packages=scoring_info.PACKAGES,
        score=_ms_swift_old,
    ),
    "opencompass": ScoringRecipe(
        title="OpenCompass",
        definition={
            "rouge": 'JiebaRougeEvaluator: the text before the first newline, "." or ",", without '
            "punctuation and English articles; jieba words, rouge-chinese F1, x100",
            "bleu": "BleuEvaluator: sacreBLEU of the corpus, "
            "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp",
            "blank": "Rouge is 0 where nothing is left of a side; BLEU takes a text without words",
        },
        packages=("jieba", "rouge-chinese", "sacrebleu"),
        score=_opencompass,
    ),
    "sacrebleu": ScoringRecipe(
        title="sacreBLEU",
        definition={
            "bleu": "sacreBLEU of the corpus, nrefs:1|case:mixed|eff:no|tok:zh|smooth:exp",
            "blank": "taken as a text without words",
        },
        packages=("sacrebleu",),
        score=_sacrebleu,
    ),
}
