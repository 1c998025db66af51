"""The command that reads the tables refuses what would leave half of them in the page."""

import pytest

from soaes import table


def test_the_page_shows_every_table():
    with pytest.raises(ValueError, match="--report: the page shows every table; leave out --only"):
        table._print_tables(["scale=smoke"], ["table1"], None, report=True)


def test_a_store_that_is_not_there_is_refused_and_not_made(tmp_path):
    words = ["scale=smoke", f"runtime.store={tmp_path / 'sotre'}"]
    with pytest.raises(ValueError, match="sotre: there is no store; build the rows"):
        table._print_tables(words, [], None, report=False)
    assert not (tmp_path / "sotre").exists()
