"""How Rouge and BLEU are computed, recorded beside every score.

Three incompatible ways of computing Chinese Rouge and BLEU are in use, and they differ by more than
the paper's effects. `metrics.scoring_recipes` computes the others.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version

DEFINITION = {
    "rouge": "jieba words, rouge-chinese F1, x100",
    "bleu": "characters, nltk sentence BLEU-4, smoothing method 3, x100",
    "blank": "an empty or blank side scores 0",
}
PACKAGES = ("jieba", "rouge-chinese", "nltk")


def scoring_info() -> dict[str, str]:
    """Describe the computation and name the versions of the libraries that it depends on."""
    return stamp(DEFINITION, PACKAGES)


def stamp(definition: Mapping[str, str], packages: Sequence[str]) -> dict[str, str]:
    """Add to a definition the versions of the packages that compute it."""
    return {**definition, **{package: version(package) for package in packages}}
