"""README shows a table that was measured, and names things that exist."""

import re
import shlex
from pathlib import Path

from soaes.pipeline import launch, sweep

README = Path("README.md").read_text(encoding="utf-8")


def test_the_table_shown_is_the_one_measured():
    measured = Path("experiments/tiny/table2.md").read_text(encoding="utf-8")
    rows = [line for line in measured.splitlines() if line.startswith("|")]
    assert len(rows) > 2 and "\n".join(rows) in README, "paste experiments/tiny/table2.md"


def test_every_path_named_exists():
    for name in re.findall(r"`((?:conf|soaes|experiments|notebooks)/[\w./]+)`", README):
        assert Path(name).exists(), name


def test_the_tree_names_every_folder_of_the_configuration_and_of_the_package():
    tree = README.partition("## The tree")[2].partition("```\n\n")[0].split()
    for root in ("conf", "soaes"):
        for path in Path(root).iterdir():
            if path.is_dir() and path.name != "__pycache__":
                assert f"{path.name}/" in tree, path


def test_every_document_is_linked():
    for path in Path("docs").glob("*.md"):
        assert f"[docs/{path.name}](docs/{path.name})" in README, path


def test_every_command_composes():
    lines = re.findall(r"^python -m soaes\.run (.*?)(?:\s+#.*)?$", README, re.M)
    assert len(lines) >= 7
    for words in (shlex.split(line) for line in lines):
        if not {"--help", "...", "data=files", "data=reviewed"} & set(words):
            for line in sweep.sweeps_of(launch.split(words)[0]):
                if "*" not in " ".join(words):
                    assert sweep.jobs(line)
