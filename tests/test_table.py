"""The command that reads the tables refuses what would leave half of them in the page."""

import pytest

from soaes import table


def test_the_page_shows_every_table():
    with pytest.raises(ValueError, match="--report: the page shows every table; leave out --only"):
        table._print_tables(["scale=smoke"], ["table1"], None, report=True)
