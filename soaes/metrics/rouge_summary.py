"""Rouge of one answer against one reference as the package `rouge` 1.0.1 computes it (ms-swift).

It differs from rouge-chinese in two points: a text is split into sentences at every ".", decimal
points included, and Rouge-L is that of summaries (Lin 2004, "ROUGE: A Package for Automatic
Evaluation of Summaries", section 3.2), over different words.

The package itself is no dependency: its wheel and that of rouge-chinese install a module of the
same name, and it recurses once per word, which ends at texts of about a thousand words.
"""

from __future__ import annotations

from itertools import chain

from rouge_chinese.rouge_score import rouge_n

from soaes.metrics.rouge import subsequence_rows


def score(prediction: str, reference: str) -> dict[str, float] | None:
    """Compute F1 of Rouge-1, Rouge-2 and Rouge-L in 0..100.

    Args:
        prediction: The answer, its words separated by spaces.
        reference: The expected answer, likewise.

    Returns:
        The scores; None where a side has no sentence, which the package refuses: "" and ".".
    """
    predicted, expected = _sentences(prediction), _sentences(reference)
    if not predicted or not expected:
        return None
    return {
        "rouge1": 100 * rouge_n(predicted, expected, 1)["f"],
        "rouge2": 100 * rouge_n(predicted, expected, 2)["f"],
        "rougeL": 100 * _union_f1(predicted, expected),
    }


def _sentences(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split(".") if part]


def _union_f1(predicted: list[str], expected: list[str]) -> float:
    """F1 of the different words in the longest common subsequences of all pairs of sentences."""
    predicted_sentences = [sentence.split(" ") for sentence in predicted]
    expected_sentences = [sentence.split(" ") for sentence in expected]
    union: set[str] = set()
    for expected_words in expected_sentences:
        for predicted_words in predicted_sentences:
            union |= common_words(expected_words, predicted_words)
    precision = len(union) / len(set(chain.from_iterable(predicted_sentences)))
    recall = len(union) / len(set(chain.from_iterable(expected_sentences)))
    return 2 * (precision * recall) / (precision + recall + 1e-8)  # 1e-8 is the package's


def common_words(expected: list[str], predicted: list[str]) -> set[str]:
    """Return the different words of the longest common subsequence.

    Of several of one length it is the one that the package finds: read from the end, it goes back
    in `predicted` unless that is shorter.
    """
    rows = list(subsequence_rows(predicted, expected))
    words = set()
    i, j = len(expected), len(predicted)
    while i and j:
        if expected[i - 1] == predicted[j - 1]:
            words.add(expected[i - 1])
            i, j = i - 1, j - 1
        elif _length(rows[i - 1], j) > _length(rows[i], j - 1):
            i -= 1
        else:
            j -= 1
    return words


def _length(row: int, num_words: int) -> int:
    """Length of the subsequence within the first words of a row of `subsequence_rows`."""
    lowest = (1 << num_words) - 1
    return num_words - (row & lowest).bit_count()
