"""BLEU-4 of one answer against one reference, over characters (decision 11).

Knows two strings: not samples, tasks or averages.
"""


def score(prediction: str, reference: str) -> float:
    """Compute sentence BLEU-4, smoothing method 3, in 0..100; 0 where a side is empty or blank."""
    if not prediction.strip() or not reference.strip():
        return 0.0
    return score_tokens(list(prediction), list(reference))


def score_tokens(prediction: list[str], reference: list[str]) -> float:
    """Compute the same over tokens of any kind; 0 where a side has none."""
    # Imported on first use: nltk pulls scipy and scikit-learn, about a second.
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    smoothing = SmoothingFunction().method3
    return 100 * float(sentence_bleu([reference], prediction, smoothing_function=smoothing))
