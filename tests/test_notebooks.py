"""The notebooks run from top to bottom, and end with numbers."""

import ast
import importlib.util
import json
from pathlib import Path

import pytest

from soaes.run import run as run_command_line
from tests.helpers.small import SMALL_MODELS, SMALL_WORLD

# A world and models that learn just enough in seconds for two chains to answer differently.
SMALL_DATA = [
    *SMALL_WORLD,
    "world.unseen_enterprises=2",
    "world.unseen_questions=4",
    "tokenizer.vocabulary=600",
]
SMALL_TRAINING = [
    *SMALL_MODELS,
    "optim.general.epochs=3",
    "optim.general.lr=8e-3",
    "optim.cpt.epochs=1",
    "optim.sft1.epochs=1",
    "optim.sft2.epochs=8",
    "optim.sft2.lr=8e-3",
    "optim.draft.epochs=8",
    "optim.draft.lr=8e-3",
    "validation.max_new_tokens=12",
]
SMALL_EVALUATION = ["eval_samples=10", "max_new_tokens={qa:24,report:24}"]
SMALL = [*SMALL_DATA, *SMALL_TRAINING, *SMALL_EVALUATION]
# W&B records only the models: starting a run takes as long as packing small data.
COMMANDS = (
    ["goal=rows.general,rows.corpus,rows.stage1,rows.stage2", *SMALL_DATA, "logger=none"],
    ["goal=distill", "distill.alpha=0.2,0.8", *SMALL_DATA, *SMALL_TRAINING, "logger=wandb"],
    ["experiment=table2", "chain@target=sft2,full", *SMALL, "logger=none"],
)


def run(name):
    """Run a notebook's code cells and return the names that they define."""
    path = Path("notebooks") / f"{name}.ipynb"
    names = {}
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), str(path), "exec"), names)
    return names


@pytest.fixture(scope="session")
def store(run_folder):
    """Build two drafts and two rows of Table 2. The workers of one test run share the store."""
    root = run_folder / "notebooks" / "store"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SOAES_STORE", str(root))
        for words in COMMANDS:
            assert run_command_line(words) == 0
    return root


@pytest.fixture
def environment(store, monkeypatch):
    """Set the environment variables that choose what a notebook reads."""
    monkeypatch.setenv("SOAES_STORE", str(store))
    monkeypatch.setenv("SCALE", "smoke")
    monkeypatch.setenv("ARGS", " ".join(SMALL))


@pytest.mark.parametrize(
    "path", sorted(Path("notebooks").glob("*.ipynb")), ids=lambda path: path.stem
)
def test_what_a_notebook_imports_of_the_package_is_there(path):
    cells = json.loads(path.read_text("utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    own = [node for node in imports if node.module.startswith("soaes")]
    assert own
    for node in own:
        module = importlib.import_module(node.module)
        for name in node.names:
            assert hasattr(module, name.name) or importlib.util.find_spec(
                f"{node.module}.{name.name}"
            ), f"{node.module}.{name.name}"


def test_one_row_by_hand():
    names = run("one_row_by_hand")
    assert names["measured"]["proof"] == "equal tokens" and names["scores"]["samples"] == 10
    first, last = names["losses"][0][1], names["losses"][-1][1]
    assert last < first


@pytest.mark.nightly
def test_tables(environment, capsys):
    names = run("tables")
    output = capsys.readouterr().out
    for words in ("## Table 2", "not built", "pretrain-", "world-", "won"):
        assert words in output
    assert names["picture"]._repr_png_().startswith(b"\x89PNG")
    better, worse = (
        names["table_rows"][names[row]].values["rouge1"] for row in ("better", "worse")
    )
    assert better > worse
    margins = [margin for (split, _), margin in names["margins"].items() if split == "test"]
    mean = sum(margins) / len(margins)
    assert mean == pytest.approx(better - worse), "the table's number is the mean of these answers"


@pytest.mark.nightly
def test_curves(environment, capsys):
    names = run("curves")
    assert "6 of 6 runs are equal to the store" in capsys.readouterr().out
    assert [stage.stage for stage in names["chain"]] == ["pretrain", "cpt", "sft", "sft"]
    assert set(names["distilled"]) == {0.2, 0.8}
    for stage in names["trained"]:
        points = names["curves"][stage.name]
        assert points[max(points)]["val/perplexity"] < points[min(points)]["val/perplexity"]
    for picture in ("chain_picture", "alpha_picture"):
        assert names[picture]._repr_png_().startswith(b"\x89PNG")
        for axes in names[picture].figure.axes:
            assert axes.lines and all(len(line.get_xdata()) for line in axes.lines)


@pytest.mark.parametrize(
    "path", sorted(Path("notebooks").glob("*.ipynb")), ids=lambda path: path.stem
)
def test_a_notebook_is_committed_without_outputs(path):
    cells = json.loads(path.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    assert cells[0]["cell_type"] == "markdown"
    assert f"def test_{path.stem}(" in Path(__file__).read_text(encoding="utf-8")
