"""A folder of the user's stands beside conf/, and nothing in it is silently left out."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from soaes.pipeline import compose, conf_folders, launch, sweep

ROOT = Path(__file__).parents[2]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder for the user's files, which no later test sees."""
    monkeypatch.setenv("SOAES_STORE", str(tmp_path / "store"))
    yield tmp_path / "own conf"
    conf_folders.use(None)


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def test_an_experiment_a_scale_a_prompt_and_a_runtime_of_the_users_are_options(own):
    write(own, "scale/mine.yaml", "# @package _global_\ndefaults:\n  - smoke\ncontext: 64\n")
    write(own, "runtime/mine.yaml", "defaults:\n  - cpu\nexecution: {threads: 1}\n")
    sweep_of_two = "hydra: {sweeper: {params: {distill.alpha: '0.25,0.75'}}}\ngoal: distill\n"
    write(own, "experiment/mine.yaml", f"# @package _global_\n{sweep_of_two}")
    write(own, "prompt/short.yaml", "defaults: [zh]\nqa: 问？\n")
    with pytest.raises(ValueError, match="experiment=mine: there is none"):
        sweep.jobs(["experiment=mine"])
    conf_folders.use(str(own))
    words = ["experiment=mine", "scale=mine", "runtime=mine", "prompt=short"]
    jobs = sweep.jobs(words)
    assert [job.recipe.arguments["alpha"] for job in jobs] == [0.25, 0.75]
    assert jobs[0].runtime.execution.threads == 1
    cfg = compose.compose_job(words)
    assert cfg.context == 64 and cfg.prompt.qa == "问？" and cfg.prompt.language == "zh"
    assert sweep.sweeps_of(["experiment=min*"]) == [["experiment=mine"]]
    with pytest.raises(ValueError, match="prompt/shrot.*Did you mean short"):
        sweep.jobs(["prompt=shrot"])
    assert conf_folders.command(words).split("--config-dir ")[1].startswith(f"'{own}' exp")
    write(own, "scale/mine.yaml", "# @package _global_\ndefaults:\n  - smoke\ncontext: 32\n")
    conf_folders.use(str(own))
    assert compose.compose_job(words).context == 32, "what was composed before is old"
    conf_folders.use(None)
    with pytest.raises(ValueError, match="scale/mine"):
        compose.compose_job(["scale=mine"])


REFUSED = {
    "ours": ("domain/soaes.yaml", "a: 1", "conf/domain/soaes.yaml is a file of ours.*my_soaes"),
    "page": ("domain/soaes.md", "text", "conf/domain/soaes.md is a file of ours"),
    "root": ("run.yaml", "a: 1", "conf/run.yaml is a file of ours"),
    "yaml": ("domain/a.yaml", "a: [1\nb: 2", r"a.yaml: line 2, column 2: .*correct the YAML"),
    "twice": ("domain/a.yaml", "a: 1\na: 2", "a.yaml: line 2, .*duplicate key a"),
    "list": ("domain/a.yaml", "- a", "must hold settings"),
    "gbk": ("domain/a.yaml", "a: 菜".encode("gb18030"), "is not UTF-8; save"),
    "yml": ("domain/a.yml", "a: 1", "reads .yaml alone; rename it to a.yaml"),
    "deep": ("domain/a.yaml", "a: " + "[" * 5000 + "]" * 5000, "nested too deep; flatten"),
    "no group": ("cooking.yaml", "a: 1", "lies in no config group.*or give the folder above"),
    "group": ("domains/a.yaml", "a: 1", "no config group domains; Did you mean domain"),
}


@pytest.mark.parametrize(("name", "text", "message"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_would_not_count_is_refused_by_name(own, name, text, message):
    write(own, name, text)
    with pytest.raises(ValueError, match=f"{re.escape(str(own))}.*{message}"):
        conf_folders.use(str(own))
    assert conf_folders.folders() == [conf_folders.CONF]


def test_hidden_files_other_files_and_groups_of_the_users_own_are_let_be(own):
    write(own, ".git/a.yaml", "a: [")
    write(own, "notes.txt", b"\xff")
    write(own, "dishes/hot.yaml", "a: 1")
    conf_folders.use(str(own))


def test_the_flag_is_taken_out_of_the_words():
    words = ["a=1", "--config-dir", "x", "b=2"]
    assert conf_folders.split(words) == (["a=1", "b=2"], "x")
    assert conf_folders.split(["-cd=x", "-c", "job"]) == (["-c", "job"], "x")
    assert conf_folders.split(["a=1"]) == (["a=1"], None)
    with pytest.raises(ValueError, match="x and y: give one folder"):
        conf_folders.split(["--config-dir=x", "--config-dir", "y"])
    for folder in ("", "/nonexistent"):
        with pytest.raises(ValueError, match=f"--config-dir {folder}: there is no such folder"):
            conf_folders.use(folder)
    with pytest.raises(ValueError, match="hydra.searchpath.*by --config-dir FOLDER"):
        launch.check(["hydra.searchpath=[file:///x]"])


COMMANDS = """
import importlib, sys
for words in (["run"], ["table"], ["report.__main__"], ["report.curation.__main__"],
              ["diff", "a.b", "a.c"], ["serve.__main__"], ["doctor.__main__"]):
    sys.argv = [words[0], "--config-dir", "nowhere", *words[1:]]
    try:
        importlib.import_module(f"soaes.{words[0]}").main()
    except SystemExit as ended:
        print(f"{words[0]} ended: {ended}")
"""


def test_every_command_that_composes_takes_the_flag(tmp_path):
    finished = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    said = "--config-dir nowhere: there is no such folder"
    *others, doctor = re.findall(r"^(.*) ended: (.*)$", finished.stdout, re.MULTILINE)
    assert len(others) == 6 and all(said in reason for _, reason in others)
    assert re.search(rf"fault +overrides +{said}", finished.stdout) and doctor[1] == "1"
