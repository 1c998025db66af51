"""Rouge of one answer against one reference, over jieba words (decision 11).

Knows two strings: not samples, tasks or averages.
"""

from collections import deque
from collections.abc import Iterator
from functools import cache

import jieba
from rouge_chinese import Rouge


def score(prediction: str, reference: str) -> dict[str, float]:
    """Compute F1 of Rouge-1, Rouge-2 and Rouge-L in 0..100; 0 where a side is empty or blank.

    Args:
        prediction: The answer.
        reference: The expected answer.
    """
    if not prediction.strip() or not reference.strip():
        return {"rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0}
    return score_words(_spaced(prediction), _spaced(reference))


def score_words(predicted: str, expected: str) -> dict[str, float]:
    """Compute the same of two texts whose words are separated by spaces; neither may be blank."""
    grams = Rouge(metrics=["rouge-1", "rouge-2"], stats=["f"]).get_scores(predicted, expected)[0]
    return {
        "rouge1": 100 * grams["rouge-1"]["f"],
        "rouge2": 100 * grams["rouge-2"]["f"],
        "rougeL": 100 * _longest_f1(_words(predicted), _words(expected)),
    }


def common_length(left: list[str], right: list[str]) -> int:
    """Compute the length of the longest common subsequence.

    rouge-chinese fills a dict of len(left) x len(right) cells: two reports of 4,000 words are 16
    million entries and gigabytes. The result is the same number.
    """
    (last_row,) = deque(subsequence_rows(left, right), maxlen=1)
    return len(left) - last_row.bit_count()


def subsequence_rows(left: list[str], right: list[str]) -> Iterator[int]:
    """Yield the table of the longest common subsequence, one big integer a row (Hyyrö 2004).

    Yields:
        A row for the first 0, 1 .. len(right) words of `right`. A zero at bit i says that the
        subsequence grows by one at left[i]: of its first k words, the length is k less the number
        of ones among the k lowest bits.
    """
    places: dict[str, int] = {}
    for i, word in enumerate(left):
        places[word] = places.get(word, 0) | 1 << i
    full = (1 << len(left)) - 1
    row = full
    yield row
    for word in right:
        hits = row & places.get(word, 0)
        row = (row + hits | row - hits) & full
        yield row


def _longest_f1(predicted: list[str], expected: list[str]) -> float:
    common = common_length(expected, predicted)
    precision, recall = common / len(predicted), common / len(expected)
    # 1e-8 is rouge-chinese's, to agree with it to the last digit
    return 2 * (precision * recall) / (precision + recall + 1e-8)


def _words(spaced: str) -> list[str]:
    """Split words as rouge-chinese does: by sentence, a blank sentence being one empty word."""
    sentences = [" ".join(line.split()) for line in Rouge().cut_sent(spaced) if line]
    return [word for sentence in sentences for word in sentence.split(" ")]


def _spaced(text: str) -> str:
    return " ".join(cut_words(text))


def cut_words(text: str) -> list[str]:
    """Cut a text into words as jieba.cut does by default; blanks are words too."""
    return list(segmenter().cut(text))


@cache
def segmenter() -> jieba.Tokenizer:
    """Load the default dictionary without jieba's cache.

    jieba.cut would write (and trust) TMPDIR/jieba.cache, which all users and processes share, and
    log it.
    """
    words = jieba.Tokenizer()
    words.FREQ, words.total = words.gen_pfdict(words.get_dict_file())
    words.initialized = True
    return words
