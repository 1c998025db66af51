"""The command line as a user types it: surviving sweeps, reruns that find everything, slips."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import yaml

from soaes import run
from soaes.pipeline import compose, dry_run, processor, sweep
from soaes.pipeline.store import Store
from tests.helpers.commands import without_torch
from tests.helpers.curations import toy_curation
from tests.helpers.small import SMALL_TARGET, SMALL_WORLD

SMALL = [*SMALL_WORLD, "logger=none"]
EXPERIMENTS = "speed4_none,table2,table3_alpha,table3_reference,table3_tau"
# Where every sweep is in the cache beside the store, Hydra is not asked.
NO_HYDRA = "from soaes.pipeline import sweep; sweep.compose_jobs = None"


def command(module, *words, torch=True, hydra=True):
    if torch:
        return [sys.executable, "-m", f"soaes.{module}", *words]
    return without_torch(module, *words, before="" if hydra else NO_HYDRA)


def soaes(store, module, *words, torch=True, hydra=True, cwd=None):
    environment = {**os.environ, "SOAES_STORE": str(store), "PYTHONPATH": str(compose.CONF.parent)}
    return subprocess.run(
        command(module, *words, torch=torch, hydra=hydra),
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd or store.parent,
    )


def on_terminal(store, module, *words, columns):
    """What a command shows on a terminal of some columns that wants no colours."""
    ours, its = pty.openpty()
    environment = {
        **os.environ,
        "SOAES_STORE": str(store),
        "PYTHONPATH": str(compose.CONF.parent),
        "PYTHONIOENCODING": "utf-8",
        "TERM": "xterm",
        "NO_COLOR": "1",
        "COLUMNS": str(columns),
    }
    program = command(module, *words, torch=False)
    process = subprocess.Popen(program, env=environment, stdout=its, cwd=store.parent)
    os.close(its)
    written = b""
    with suppress(OSError):  # the terminal's end
        while chunk := os.read(ours, 1 << 16):
            written += chunk
    os.close(ours)
    assert process.wait(timeout=300) == 0, written
    return written.decode("utf-8").splitlines()


def test_a_failing_row_leaves_the_others_standing_and_the_next_run_goes_on(tmp_path):
    store = tmp_path / "store"
    ran = soaes(store, "run", "-m", "goal=data.documents", *SMALL, "world.enterprises=8,9000,9")
    assert ran.returncode == 1, ran.stderr
    assert "FAILED   world.enterprises=9000" in ran.stdout and "outside 3..210" in ran.stdout
    assert len(Store(store).names("world")) == 2
    assert ran.stdout.count("row  world.enterprises=8 ") == 1, (
        "printed as it was built, and not again"
    )
    (error,) = store.glob("sweeps/*/*/*/error.txt")
    assert "Traceback" in error.read_text() and "again: python -m soaes.run" in error.read_text()
    again = soaes(store, "run", "goal=data.documents", *SMALL, "world.enterprises=8,9", torch=False)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count("world-") == 2, "found, not built"


def test_a_row_of_before_whose_stage_is_gone_and_fails_is_reported_as_failed_and_not_as_a_row(
    tmp_path,
):
    """One that needs no torch to fail: its parent's folder is there, but is not what it was."""
    store, words = tmp_path / "store", ["goal=tokenizer", *SMALL]
    (row,) = sweep.jobs([*words, f"runtime.store={store}"])
    (parent,) = row.recipe.parents.values()
    store.joinpath(parent.name).mkdir(parents=True)
    (store / parent.name / "manifest.json").write_text(
        json.dumps({"files": {"corpus.jsonl": {"bytes": 1}}})
    )
    (store / "rows").mkdir()
    (store / "rows" / f"{row.name}.json").write_text(json.dumps({"logger": "disabled"}))
    ran = soaes(store, "run", *words, torch=False)
    assert ran.returncode == 1 and "corpus.jsonl is not what" in ran.stdout, ran.stderr
    assert "row  " not in ran.stdout and ran.stdout.count("again: ") == 1, "printed once"
    assert len(list(store.glob("sweeps/*/*/*/error.txt"))) == 1


def complete(store, words):
    """A store in which every stage of every row is there, with some numbers in it.

    Every row but those of Table 3's reference is recorded. Returns all of them.
    """
    rows, recipes = [], {}
    for arguments in sweep.sweeps_of([f"experiment={EXPERIMENTS}", *words]):
        rows += sweep.jobs(arguments)
    (store / "rows").mkdir(parents=True)
    for row in rows:
        recipes |= row.recipe.ancestry()
        if row.experiment != "table3_reference":
            record = {"logger": "disabled"}
            (store / "rows" / f"{row.name}.json").write_text(json.dumps(record))
    facts = {
        "files": {},
        "seconds": 1.0,
        "peak_memory_mb": 1,
        "made": "now",
        "commit": "abc",
        "source": "def",
        "machine": "here",
    }
    for recipe in recipes.values():
        folder = store / recipe.name
        folder.mkdir(parents=True)
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe.written))
        (folder / "manifest.json").write_text(json.dumps(facts))
        (folder / "metrics.json").write_text(json.dumps(metrics_of(recipe.stage)))
    return rows


def metrics_of(stage):
    if stage == "predict_acceptance":
        return {"overlap_on_text": 80.0}
    return {"rouge1": 40.0, "rouge2": 20.0, "rougeL": 30.0, "bleu4": 10.0, "cmmlu": 60.0}


def test_a_cached_sweep_and_its_tables_need_no_torch(tmp_path, monkeypatch):
    """And compose nothing again, which takes Hydra a third of a second for each job."""
    store, words = tmp_path / "store", ["logger=none"]
    monkeypatch.setenv("SOAES_STORE", str(store))
    monkeypatch.chdir(tmp_path)  # as the commands below: the cache knows the folder too
    rows = complete(store, words)
    first = soaes(store, "run", "experiment=table3_reference", *words, torch=False)
    assert first.returncode == 0, first.stdout + first.stderr
    assert {path.stem for path in (store / "rows").iterdir()} == {row.name for row in rows}
    second = soaes(store, "run", f"experiment={EXPERIMENTS}", *words, torch=False, hydra=False)
    table = soaes(
        store, "table", *words, "--only", "table2", "table3", "--out", str(tmp_path), torch=False
    )
    assert second.returncode == 0 and table.returncode == 0, table.stderr
    count, *lines = second.stdout.splitlines()
    assert count == f"{len(rows)} of {len(rows)} rows done" and len(lines) == len(rows) >= 16
    assert (
        re.search(r"\| Base 3x96 \+ CPT \+ stage-1 SFT \+ stage-2 SFT +\| 40.00", table.stdout)
        and "not built" not in table.stdout
    )
    assert (
        ",40,,,28.26," in (tmp_path / "table2.csv").read_text()
        and r"\begin{tabular}" in (tmp_path / "table2.tex").read_text()
    )
    assert on_terminal(store, "run", "experiment=table2", *words, columns=100) == [
        "7 of 7 rows done"
    ]
    shown = on_terminal(store, "table", *words, "--only", "table2", columns=100)
    assert max(map(len, shown)) <= 100 and not any("\x1b" in line or "|" in line for line in shown)
    assert any(
        re.match(r"  Base 3x96 \+ CPT \+ SFT-1 \+ SFT-2  40.00 +43.08", line) for line in shown
    )
    assert shown[-1] == f"Files: {store / 'tables' / 'smoke'}"
    why = soaes(store, "table", *words, "--why", "table3.alpha_05", torch=False, hydra=False)
    assert "distill-" in why.stdout and "world-" in why.stdout and "alpha=0.5" in why.stdout
    assert "Did you mean table3" in soaes(store, "table", "--why", "tabel3.alpha_05").stderr


def test_a_row_that_the_overrides_leave_out_says_so(tmp_path):
    (tmp_path / "store").mkdir()
    table = soaes(
        tmp_path / "store",
        "table",
        "distill.alpha=0.3",
        "--only",
        "table3",
        "--out",
        str(tmp_path),
        torch=False,
    )
    assert table.returncode == 0 and table.stdout.count("not swept") >= 4, table.stderr
    two = soaes(
        tmp_path / "store",
        "table",
        "distill.tau=2,3",
        "--only",
        "table3",
        "--out",
        str(tmp_path),
        torch=False,
    )
    assert two.returncode == 1 and two.stderr.startswith(
        "error: 2 jobs of table2 match row instruct"
    )


def test_a_cache_that_was_cut_short_is_composed_again(tmp_path):
    words = ["experiment=table3_alpha", f"runtime.store={tmp_path / 'store'}"]
    names = [row.name for row in sweep.jobs(words)]
    (cache,) = (tmp_path / "store" / ".cache" / "rows").glob("*.json")
    cache.write_text(cache.read_text()[:100])
    assert [row.name for row in sweep.jobs(words)] == names


def test_changed_data_is_another_recipe(tmp_path):
    text = tmp_path / "data" / "corpus" / "a.txt"
    text.parent.mkdir(parents=True)
    questions = tmp_path / "data" / "qa" / "train.jsonl"
    questions.parent.mkdir()
    questions.touch()
    names = set()
    for words in ("国有资产", "国有资本"):
        text.write_text(words)
        (row,) = sweep.jobs(
            [
                "goal=data.documents",
                "data=files",
                f"data.root={tmp_path / 'data'}",
                f"runtime.store={tmp_path / 's'}",
            ]
        )
        names.add(row.recipe.name)
    assert len(names) == 2


def test_a_run_on_a_users_files_ends_with_the_path_of_their_page(tmp_path, capsys):
    store, last = toy_curation(tmp_path, "国有资产")
    pages = store.root / "curation"
    for _ in range(2):  # the second run finds the page
        run._say_curation(store, [last])
        assert capsys.readouterr().out.startswith(f"curation  {pages / last.name}.html")
    assert sorted(path.suffix for path in pages.iterdir()) == [".html", ".json"]
    pages.rename(tmp_path / "elsewhere")
    pages.touch()  # where no folder can be made
    run._say_curation(store, [last])
    assert capsys.readouterr().out.startswith("curation  no page: ")


def test_a_missing_cell_says_why(tmp_path):
    (tmp_path / "store").mkdir()
    table = soaes(
        tmp_path / "store", "table", "--only", "table2", "--out", str(tmp_path), torch=False
    )
    assert (
        table.returncode == 0
        and table.stdout.count("not built") >= 7
        and " 0.00" not in table.stdout
    )


def test_dry_shows_the_plan_and_builds_nothing(tmp_path):
    dry = soaes(tmp_path / "store", "run", "experiment=table3_alpha", "dry=true", torch=False)
    assert (
        dry.returncode == 0
        and dry.stdout.count("to run  distill-") == 4
        and dry.stdout.count("to run  pretrain-") == 2
    )
    assert not (tmp_path / "store" / "unfinished").exists()


@pytest.mark.parametrize(
    ("flags", "environment", "warned"),
    [
        ("flags : fpu avx2", {}, "this processor has no bfloat16 instructions"),
        ("flags : fpu avx512_bf16", {}, ""),
        (
            "flags : fpu avx512_bf16",
            {"ONEDNN_MAX_CPU_ISA": "AVX2"},
            "ISA=AVX2 keeps",
        ),
        ("flags : fpu amx_bf16", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, ""),
    ],
    ids=["avx2", "avx512-bf16", "limited-to-avx2", "limited-to-bf16"],
)
def test_bfloat16_on_a_processor_that_is_slow_at_it_is_warned_of(
    tmp_path, monkeypatch, flags, environment, warned
):
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    processor.CPUINFO.write_text(f"model name : toy\n{flags}\n")
    for name in processor.LIMITS:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    store = Store(tmp_path / "store")
    for precision, expected in (("bf16-mixed", warned), ("32-true", "")):
        words = ["goal=target.base", f"precision={precision}", f"runtime.store={store.root}"]
        (job,) = sweep.jobs(words)
        warning = dry_run.slow_precision(store, [job.recipe], job.runtime)
        assert expected in warning and bool(warning) == bool(expected)


@pytest.mark.parametrize(
    "words", [["distil.alpha=0.5"], ["experiment=tabel2"], ["goal=distill", "distill.tau=0"]]
)
def test_a_slip_is_one_line_and_no_traceback(tmp_path, words):
    ran = soaes(tmp_path / "store", "run", *words, torch=False)
    assert (
        ran.returncode == 1
        and ran.stderr.startswith("error: ")
        and len(ran.stderr.splitlines()) == 1
    )
    assert not ran.stdout


def test_a_launched_sweep_records_the_same_as_one_that_runs_here(tmp_path):
    """Hydra enumerates a sweep's jobs as we do, and each job's folder holds the same files."""
    words = ["-m", "goal=tokenizer", *SMALL, "world.enterprises=8,9000"]
    folders = {}
    for name, launcher in (("here", []), ("launched", ["hydra/launcher=basic"])):
        store = tmp_path / name
        ran = soaes(store, "run", *words, *launcher)
        assert ran.returncode == 1, ran.stderr
        assert ran.stdout.count("row  world.enterprises=8 ") == 1
        (folder,) = store.glob("sweeps/*/*")
        folders[name] = folder
    for number, written in (("0", set()), ("1", {"error.txt"})):
        for folder in folders.values():
            names = {path.name for path in (folder / number).iterdir()}
            assert names == {"overrides.yaml", "config.yaml"} | written
            errors = [(folder / number / name).read_text() for name in written]
            assert all("needs world-" in error and "Traceback" in error for error in errors)
        config = [(folder / number / "config.yaml").read_text() for folder in folders.values()]
        assert config[0] == config[1]
        overrides = yaml.safe_load((folders["here"] / number / "overrides.yaml").read_text())
        (job,) = sweep.jobs(overrides)
        assert yaml.safe_load(config[0])["tokenizer"] == job.recipe.arguments | {
            "_target_": job.recipe.target,
            "documents": "${data.documents}",
        }


@pytest.mark.parametrize("module", ["run", "table"])
def test_a_folder_that_cannot_be_written_is_one_line_with_the_way_out(tmp_path, module):
    """A path below a file, which fails for root as well, as a read-only file system does."""
    (tmp_path / "file").touch()
    store = tmp_path / "file" / "store"
    words = ["scale=smoke"]
    if module == "table":
        words += ["--out", str(store)]
        (tmp_path / "store").mkdir()
    written = store if module == "run" else tmp_path / "store"
    ran = soaes(written, module, *words, torch=False, cwd=tmp_path)
    assert ran.returncode == 1 and len(ran.stderr.splitlines()) == 1
    assert "file/store" in ran.stderr and "cannot be written (Not a directory); set" in ran.stderr
    assert "runtime.store=FOLDER" in ran.stderr or "--out FOLDER" in ran.stderr
    if module == "run":
        dry = soaes(tmp_path / "file" / "store", "run", "dry=true", torch=False, cwd=tmp_path)
        assert dry.returncode == 0, "a plan is shown all the same"


def test_a_store_that_has_everything_need_not_be_writable(tmp_path, monkeypatch):
    words = [f"runtime.store={tmp_path}", "goal=data.documents", *SMALL]
    assert run.run(words) == 0
    monkeypatch.setattr(run, "check_writable", None)
    assert run.run(words) == 0


START_SERVER = """
import multiprocessing, tempfile
from pathlib import Path
from soaes.pipeline import scheduler
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.runtime import Runtime
from soaes.pipeline.store import Store

scheduler.PRELOAD = []  # no torch: the server itself counts
stage, store = Recipe("soaes.stages.train.sft", {}), Path("store")
todo, outcome = {stage.name: stage}, scheduler.Outcome()
scheduler.Scheduler(Store(store), todo, Runtime(store), outcome, {})._start_server()
forked = multiprocessing.get_context("forkserver").Process(target=tempfile.mkdtemp)
forked.start()
forked.join()
print(forked.exitcode, tempfile.gettempdir())
"""


@pytest.mark.parametrize("length", [10, 150], ids=["short", "longer-than-a-socket"])
def test_stages_are_forked_and_find_their_temporary_files_below_any_tmpdir(tmp_path, length):
    temporary = tmp_path / ("t" * length)
    temporary.mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", START_SERVER],
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(compose.CONF.parent)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.stdout == f"0 {temporary}\n", ran.stderr
    assert any(temporary.iterdir()), "the stage's own files lie where TMPDIR says"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["goal=tokenizer", "hydra/launcher=slurm"], "no such launcher here; `pip install"),
        (["hydra.run.dir=elsewhere"], "Hydra's own settings count only beside hydra/launcher="),
        (["goal=tokenizer", "tokenizer.vocabulary=interval(1,2)"], "cannot be listed"),
    ],
    ids=["unknown-launcher", "hydra-settings-without-launcher", "interval"],
)
def test_what_hydra_would_ignore_or_not_end_is_refused(tmp_path, words, message):
    ran = soaes(tmp_path / "store", "run", *words, torch=False)
    assert ran.returncode == 1 and message in ran.stderr and len(ran.stderr.splitlines()) == 1


def test_hydras_own_flags_go_to_hydra(tmp_path):
    shown = soaes(tmp_path / "store", "run", "--cfg", "job", "seed=7", torch=False)
    assert shown.returncode == 0 and yaml.safe_load(shown.stdout)["seed"] == 7


def interruptible(store, *words):
    """Start a run in a process group of its own, which heeds Ctrl-C.

    What a shell runs in the background ignores it, as perhaps this suite.
    """
    return subprocess.Popen(
        command("run", "logger=none", *words),
        env={**os.environ, "SOAES_STORE": str(store), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        cwd=Path(compose.CONF).parent,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def interrupt(ran, is_due):
    """Press Ctrl-C once it is due; return what was printed, once no process is left."""
    try:
        deadline = time.monotonic() + 300
        while not is_due():
            assert ran.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(ran.pid, signal.SIGINT)
        printed, _ = ran.communicate(timeout=300)
        with pytest.raises(ProcessLookupError):
            while time.monotonic() < deadline:
                os.killpg(ran.pid, 0)
                time.sleep(0.02)
        return printed
    finally:
        with suppress(ProcessLookupError):  # or it would train on for hours beside the other tests
            os.killpg(ran.pid, signal.SIGKILL)


def test_ctrl_c_keeps_what_is_finished_and_leaves_no_half_output(tmp_path):
    store = tmp_path / "store"
    endless = ["optim.general.epochs=500", "optim.general.max_tokens=null"]
    ran = interruptible(store, "goal=target.base", *SMALL_WORLD, *SMALL_TARGET, *endless)
    printed = interrupt(ran, lambda: list(store.glob("unfinished/pretrain-*/curves.jsonl")))
    assert ran.returncode == 130 and "run the same command again to continue" in printed
    assert len(Store(store).names("pack")) == 1 and not Store(store).names("pretrain")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads children from /proc")
@pytest.mark.parametrize("children", [1, 3])
def test_ctrl_c_at_the_start_is_one_line(tmp_path, children):
    """While the processes of a build load: the first of them, and the last, a stage."""
    ran = interruptible(tmp_path / "store", "goal=target.base")
    listed = Path(f"/proc/{ran.pid}/task/{ran.pid}/children")
    printed = interrupt(ran, lambda: len(listed.read_text().split()) >= children)
    assert ran.returncode == 130
    assert printed.splitlines() == [
        "interrupted: 0 stages are finished; run the same command again to continue"
    ]
