"""What a stage measured is written as JSON that anyone can read."""

import json
import math

import pytest

from soaes.metrics.schema import write_metrics


def test_metrics_are_written_as_they_are(tmp_path):
    metrics = {"val/perplexity": 3.5, "overlap": None, "tests_per_position": [3, 2]}
    write_metrics(tmp_path, metrics)
    assert json.loads((tmp_path / "metrics.json").read_text("utf-8")) == metrics


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, [1.0, math.nan], {"qa": {"rouge1": -math.inf}}], ids=str
)
def test_a_metric_that_is_no_finite_number_is_refused_by_name(tmp_path, value):
    with pytest.raises(ValueError, match="^val/perplexity=.*: not a finite number"):
        write_metrics(tmp_path, {"steps": 3, "val/perplexity": value})
    assert not list(tmp_path.iterdir())
