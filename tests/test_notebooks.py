"""The notebooks run from top to bottom, and end with numbers."""

import json
from pathlib import Path

import pytest


@pytest.mark.parametrize("path", sorted(Path("notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_runs(path):
    names = {}
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile(cell["source"], str(path), "exec"), names)
    assert names["measured"]["proof"] == "equal tokens" and names["scores"]["samples"] == 10
    first, last = names["losses"][0][1], names["losses"][-1][1]
    assert last < first
