"""The benchmark of curation runs, and says of each format whether its target is met."""

import pytest

from benchmarks import curate, curate_reading
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
