"""experiments/README.md links the page of each scale that is published."""

import csv

from soaes.pipeline.store import write_json
from soaes.report import index, markdown


def published(root, scale, seeds):
    """The folder of a scale with one verdict."""
    folder = root / scale
    folder.mkdir()
    claim = dict.fromkeys(markdown.VERDICT_COLUMNS, "") | {"claim": "T0a", "verdict": "holds"}
    with open(folder / "verdicts.csv", "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, markdown.VERDICT_COLUMNS)
        writer.writeheader()
        writer.writerow(claim | {"table": "table0", "seeds": seeds})
    write_json(folder / "recipes.json", {"overrides": [f"scale={scale}"]})
    return folder


def test_the_page_of_a_scale_is_linked_where_there_is_one(tmp_path):
    for seeds, scale in enumerate(["toy", "small", "large"], start=1):
        published(tmp_path, scale, seeds)
    for scale in ("toy", "large"):
        (tmp_path / scale / "report.html").write_text("")
    index.write(tmp_path)
    text = (tmp_path / "README.md").read_text("utf-8")
    assert "All of it: [large/](large/) and [large/report.html](large/report.html).\n" in text
    assert "1 holds; see `verdicts.csv` and [toy/report.html](toy/report.html)." in text
    assert "small/report.html" not in text and "1 holds; see `verdicts.csv`.\n" in text
