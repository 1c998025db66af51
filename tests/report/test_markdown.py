"""The notes of a table say what was left out of its rows."""

from types import SimpleNamespace

import pytest

from soaes.report.markdown import _few_seeds_text, _notes_of
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


@pytest.mark.parametrize(
    ("built", "text"),
    [
        pytest.param(["a", "b", "s0"], "Of speed: seed 0.  ", id="one"),
        pytest.param(["a", "b", "s0", "s1"], "Of speed: seed 0, 1.  ", id="both"),
        pytest.param(["a", "b"], "", id="none"),
    ],
)
def test_the_seeds_of_a_few_are_those_that_were_measured(built, text):
    names = {0: {"evaluate": "a", "speed": "s0"}, 1: {"evaluate": "b", "speed": "s1"}}
    recipes = {
        seed: {goal: SimpleNamespace(name=name) for goal, name in goals.items()}
        for seed, goals in names.items()
    }
    table = SimpleNamespace(
        spec=SimpleNamespace(few_seeds=("speed",)), rows={"row": TableRow("row", recipes=recipes)}
    )
    assert _few_seeds_text(table, SimpleNamespace(holds=built.__contains__)) == text
