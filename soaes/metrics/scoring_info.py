"""How Rouge and BLEU are computed, recorded beside every score.

Three incompatible ways of computing Chinese Rouge and BLEU are in use, and they differ by more than
the paper's effects.
"""

from importlib.metadata import version


def scoring_info() -> dict[str, str]:
    """Describe the computation and name the versions of the libraries that it depends on."""
    return {
        "rouge": "jieba words, rouge-chinese F1, x100",
        "bleu": "characters, nltk sentence BLEU-4, smoothing method 3, x100",
        "blank": "an empty or blank side scores 0",
        **{package: version(package) for package in ("jieba", "rouge-chinese", "nltk")},
    }
