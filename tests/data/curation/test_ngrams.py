"""Laws of the n-gram kernel: it equals its definition, and sees letters and digits alone."""

from random import Random

import numpy as np
import pytest

from soaes.data.curation import ngrams

TEXT = "国有企业ＡＢＣ、abc 甲乙𠮷丙\ud800丁，第1条：3+2=5。" * 7


def polynomial(points, n):
    """The hashes by their definition, in Python's whole numbers."""
    hashes = []
    for start in range(len(points) - n + 1):
        value = 0
        for point in points[start : start + n]:
            value = (value * ngrams.MULTIPLIER + int(point)) % ngrams.WORD
        for _ in range(2):
            value ^= value >> 32
            value = value * ngrams.MIXER % ngrams.WORD
        hashes.append(value ^ value >> 32)
    return hashes


@pytest.mark.parametrize("n", [1, 2, 5, 13, 60])
@pytest.mark.parametrize("block", [1, 7, ngrams.BLOCK])
def test_hashes_equal_the_polynomial_in_blocks_of_any_size(monkeypatch, n, block):
    monkeypatch.setattr(ngrams, "BLOCK", block)
    points = ngrams.code_points(TEXT)
    assert ngrams.ngram_hashes(points, n).tolist() == polynomial(points, n)


def test_a_text_shorter_than_n_has_no_ngram_and_a_whole_text_has_one():
    points = ngrams.code_points("国资委")
    assert ngrams.ngram_hashes(points, 4).tolist() == []
    assert ngrams.ngram_hash(points) == polynomial(points, 3)[0]
    assert ngrams.ngram_hash(points[:0]) == 0


def test_equal_ngrams_have_equal_hashes_wherever_they_stand():
    hashes = ngrams.ngram_hashes(ngrams.code_points("x国有企业yyy国有企业"), 4)
    assert hashes[1] == hashes[8] and len(set(hashes.tolist())) == len(hashes) - 1


def test_folding_leaves_letters_digits_and_signs():
    plain = ngrams.folded("**第1条** ＡＢc，是：\n“3+2=5%”？")
    assert ngrams.text_of(plain) == "第1条abc是3+2=5%"
    assert np.array_equal(plain, ngrams.folded("第１条　abC 是 3+2=5%"))
    assert ngrams.text_of(ngrams.folded("𠮷\ud800国")) == "𠮷国"


def test_offsets_lead_back_into_the_text():
    points, offsets = ngrams.folded_with_offsets(TEXT)
    assert np.array_equal(points, ngrams.folded(TEXT))
    for point, offset in zip(points, offsets):
        assert np.array_equal(ngrams.folded(TEXT[offset]), [point])


def test_jaccard_equals_that_of_sets():
    random = Random(0)
    for _ in range(200):
        first, second = ([random.randrange(9) for _ in range(random.randrange(9))] for _ in "ab")
        arrays = [ngrams.distinct(np.array(hashes, np.uint64)) for hashes in (first, second)]
        assert [array.tolist() for array in arrays] == [sorted(set(first)), sorted(set(second))]
        union = set(first) | set(second)
        similarity = len(set(first) & set(second)) / max(1, len(union))
        assert ngrams.jaccard(*arrays) == similarity


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("piece", [1, 3, 64])
def test_pieces_hold_every_ngram_once_in_order(monkeypatch, n, piece):
    whole = ngrams.ngram_hashes(ngrams.folded(TEXT), n).tolist()
    monkeypatch.setattr(ngrams, "PIECE", piece)
    assert np.concatenate(list(ngrams.ngram_pieces(TEXT, n))).tolist() == whole
    assert not list(ngrams.ngram_pieces("", n))
