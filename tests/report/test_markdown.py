"""The notes of a table say what was left out of its rows."""

import pytest

from soaes.report.markdown import _notes_of
from soaes.report.results import TableRow


@pytest.mark.parametrize(
    ("values", "notes"),
    [
        pytest.param({"samples": 7, "num_skipped": 0}, [], id="nothing"),
        pytest.param(
            {"samples": 7, "num_skipped": 3}, ["3 of 10 samples are left out"], id="answered"
        ),
        pytest.param({"prompts": 7, "num_skipped": 3}, ["3 samples are left out"], id="drawn"),
    ],
)
def test_samples_that_do_not_fit_are_said(values, notes):
    reason = ": too long for the model's positions"
    assert _notes_of(TableRow("row", values=values)) == [note + reason for note in notes]
