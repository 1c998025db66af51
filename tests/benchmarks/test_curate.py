"""The benchmark of curation runs, and says of each format whether its target is met."""

from random import Random

import pytest

from benchmarks import curate, curate_contamination, curate_near, curate_reading
from tests.helpers import pdfs

LAW = "国有资产监督管理机构代表本级人民政府履行出资人职责，依法享有资产收益等权利。"


def test_every_format_of_a_folder_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(curate_reading, "MIN_BYTES", 1)
    (tmp_path / "a.md").write_text(LAW * 999, encoding="utf-8")
    (tmp_path / "a.html").write_text(f"<p>{LAW}</p>" * 99, encoding="utf-8")
    (tmp_path / "a.pdf").write_bytes(pdfs.document([LAW] * 9))
    results = curate_reading.results(tmp_path, rounds=5)
    named = {result["name"]: result for result in results}
    assert {"text, 1 files", "html, 1 files", "pdf, 1 files"} <= set(named)
    assert all(result["median"] > 0 and result["rounds"] == 5 for result in results)
    assert named["pdf, 1 files"]["target"] == 150


@pytest.mark.parametrize("words", [[], ["corpus=/nowhere"]], ids=["none", "missing"])
def test_a_folder_must_be_named(words):
    with pytest.raises(ValueError, match="name a folder of documents"):
        curate.main(words)


def test_planted_pairs_are_found_and_other_titles_and_dates_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(curate_near, "LEVELS", (0.7, 0.9))
    monkeypatch.setattr(curate_near, "COPIES", (1,))
    for number in range(3):
        characters = Random(number).choices(range(0x4E00, 0x9FA5), k=2500)
        text = f"第{number}号\n" + "".join(map(chr, characters))
        (tmp_path / f"{number}.md").write_text(text, encoding="utf-8")
    results = {result["name"]: result for result in curate_near.results(tmp_path, rounds=5)}
    assert results["found of all pairs at J .8 or above"]["median"] == 100
    assert results["drops that are such pairs"]["median"] == 100
    for name in ("title", "date"):
        assert results[f"merged of 3 pairs with another {name}"]["median"] == 0
    assert 0 < results["peak memory, 3 documents"]["median"] < 1000


def test_planted_questions_are_found(tmp_path):
    (tmp_path / "a.txt").write_text(f"{LAW}\n" * 20, encoding="utf-8")
    exam = "id,question,A,B,C,D,answer\n0,下列哪一项不属于国有资产出资人的权利？,甲,乙,丙,丁,A\n"
    (tmp_path / "law.csv").write_text(exam, encoding="utf-8")
    flagged, *planted = curate_contamination.results(tmp_path, tmp_path)
    assert flagged["median"] == 0 and len(planted) == len(curate_contamination.DISGUISES)
    assert {result["median"] for result in planted} == {100}
