"""Two folders of a user's, a Llama-3 and a Qwen3 with one tokenizer, fill all six tables."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from soaes.data.jsonl import read_jsonl
from soaes.pipeline import compose
from soaes.pipeline.sweep import compose_jobs
from soaes.stages import prepare
from tests.helpers.models import save_llama3_tokenizer, save_model

CHECKOUT = Path(compose.CONF).parent


def save_pair(root):
    """A target, and a draft with fewer vocabulary rows; their tokenizer has no token of ChatML."""
    (job,) = compose_jobs(["goal=data.documents"])
    (documents := root / "documents").mkdir()
    prepare.world(**without_revision(job.recipe.arguments), out=documents)
    texts = [record["text"] for record in read_jsonl(documents / "general.jsonl")]
    tokenizer = save_llama3_tokenizer(root / "tokenizer", texts)
    save_model(root / "target", "llama", tokenizer, rows=2112)
    save_model(root / "draft", "qwen3", tokenizer, num_hidden_layers=1)
    return [f"target.model={root / 'target'}", f"draft.model={root / 'draft'}"]


def without_revision(arguments):
    return {key: value for key, value in arguments.items() if key != "revision"}


@pytest.mark.nightly
def test_two_folders_fill_the_six_tables(tmp_path):
    words = " ".join([*save_pair(tmp_path), "logger=none"])
    environment = {**os.environ, "SOAES_STORE": str(tmp_path / "store")}
    ran = subprocess.run(
        ["make", "-o", ".venv/ready", "tables", f"PYTHON={sys.executable}", "SCALE=smoke"]
        + [f"ARGS={words}"],
        env=environment,
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    tables = ran.stdout[ran.stdout.index("## Table 1") :]
    paper = tables.partition("## Formats")[0].partition("## Verdicts")[0]
    for number in range(1, 7):
        assert f"## Table {number}" in paper
    for gap in ("not built", "failed", "not measured"):
        assert gap not in paper
    assert "llama 2x64" in paper and "qwen3 1x64" in paper
    assert "sanity check FAILED" not in tables
