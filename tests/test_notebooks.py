"""The notebooks run from top to bottom, and end with numbers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# a world and models that learn just enough in seconds for two chains to answer differently
SMALL = [
    "world.entities=12",
    "world.enterprises=8",
    "world.questions=100",
    "world.exam_questions=20",
    "world.dialogues=40",
    "world.docs_per_entity=4",
    "world.mcq_per_fact=2",
    "world.unseen_enterprises=2",
    "world.unseen_questions=4",
    "tokenizer.vocabulary=600",
    "eval_samples=10",
    "max_new_tokens={qa:24,report:24}",
    "target.origin.base.layers=1",
    "target.origin.base.width=64",
    "target.origin.base.heads=2",
    "draft.origin.base.width=32",
    "draft.origin.base.heads=1",
    "optim.general.epochs=3",
    "optim.general.lr=8e-3",
    "optim.cpt.epochs=1",
    "optim.sft1.epochs=1",
    "optim.sft2.epochs=8",
    "optim.sft2.lr=8e-3",
    "optim.draft.epochs=8",
    "optim.draft.lr=8e-3",
]
GRIDS = (
    ["experiment=table3_alpha", "distill.alpha=0.2,0.8"],
    ["experiment=table2", "chain@target=sft2,full"],
)


def run(name):
    """What a notebook's names hold after its last cell."""
    path, names = Path("notebooks") / f"{name}.ipynb", {}
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), str(path), "exec"), names)
    return names


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """Four built rows with their W&B runs; workers of one test run share it, as any two sweeps may share a store."""
    folder = tmp_path_factory.getbasetemp()
    root = (
        (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "notebooks" / "store"
    )
    for words in GRIDS:
        ran = subprocess.run(
            [sys.executable, "-m", "soaes.run", *words, *SMALL, "logger=wandb"],
            env={**os.environ, "SOAES_STORE": str(root)},
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
    return root


@pytest.fixture
def chosen(store, monkeypatch):
    for key, value in {
        "SOAES_STORE": str(store),
        "SCALE": "smoke",
        "ARGS": " ".join(SMALL),
    }.items():
        monkeypatch.setenv(key, value)


def test_one_row_by_hand():
    names = run("one_row_by_hand")
    assert names["measured"]["proof"] == "equal tokens" and names["scores"]["samples"] == 10
    first, last = names["losses"][0][1], names["losses"][-1][1]
    assert last < first


def test_tables(chosen, capsys):
    names = run("tables")
    said = capsys.readouterr().out
    assert "## Table 2" in said and "not built" in said and "pretrain-" in said and "world-" in said
    assert names["picture"]._repr_png_().startswith(b"\x89PNG")
    told = (
        names["lines"][names["better"]].values["rouge1"]
        - names["lines"][names["worse"]].values["rouge1"]
    )
    assert told > 0 and "won" in said
    of_test = [margin for (split, _), margin in names["margins"].items() if split == "test"]
    assert sum(of_test) / len(of_test) == pytest.approx(told), (
        "the answers are those that the table's number is the mean of"
    )


def test_curves(chosen, capsys):
    names = run("curves")
    assert "6 of 6 runs are what the store has" in capsys.readouterr().out
    assert [stage.stage for stage in names["chain"]] == ["pretrain", "cpt", "sft", "sft"] and set(
        names["distilled"]
    ) == {0.2, 0.8}
    for stage in names["trained"]:
        first, last = (
            names["curves"][stage.name][at(names["curves"][stage.name])]["val/perplexity"]
            for at in (min, max)
        )
        assert last < first
    assert all(
        names[picture]._repr_png_().startswith(b"\x89PNG")
        for picture in ("chain_picture", "alpha_picture")
    )


@pytest.mark.parametrize(
    "path", sorted(Path("notebooks").glob("*.ipynb")), ids=lambda path: path.stem
)
def test_a_notebook_is_committed_without_outputs(path):
    cells = json.loads(path.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    assert (
        cells[0]["cell_type"] == "markdown"
        and f"def test_{path.stem}(" in Path(__file__).read_text()
    )
