"""How the scores are computed, as a stamp to lay beside every score. Computes none of them.

Three incompatible recipes of Chinese Rouge and BLEU are in use and differ by more than the paper's effects.
"""

from importlib.metadata import version


def scoring_info() -> dict[str, str]:
    """The recipe in words and the versions of the libraries that it depends on."""
    return {
        "rouge": "jieba words, rouge-chinese F1, x100",
        "bleu": "characters, nltk sentence BLEU-4, smoothing method 3, x100",
        "blank": "an empty or blank side scores 0",
        **{package: version(package) for package in ("jieba", "rouge-chinese", "nltk")},
    }
