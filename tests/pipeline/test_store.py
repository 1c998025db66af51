"""Laws of the store and the builder.

A stage is built once and is complete under a final name; a failure takes only its descendants down.
"""

import errno
import fcntl
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from soaes.model.settings import ConstantSchedule
from soaes.pipeline import scheduler as builder
from soaes.pipeline import sweep, worker
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.runtime import LoggerSettings, Runtime
from soaes.pipeline.store import Store, atomic_write, read_json, read_recipe
from tests.helpers.small import SMALL_MODELS, SMALL_WORLD

RUNTIME = Runtime(store=Path("store"), parallel_stages=2)
SIZES = {
    "entities": 12,
    "famous": 4,
    "enterprises": 8,
    "docs_per_entity": 4,
    "docs_per_enterprise": 4,
    "mcq_per_fact": 2,
    "cloze_per_fact": 2,
    "dialogues": 40,
    "short_questions": 40,
    "questions": 100,
    "exam_questions": 20,
}


def world(seed=0, **changed):
    return Recipe("soaes.stages.prepare.world", {"seed": seed, **SIZES, **changed})


def tokenizer(documents, vocabulary=600):
    return Recipe(
        "soaes.stages.prepare.tokenizer", {"documents": documents, "vocabulary": vocabulary}
    )


@pytest.fixture(scope="session")
def built(run_folder):
    """A store with a world and its tokenizer; the workers of one test run build it once."""
    store = Store(run_folder / "built" / "store")
    assert not builder.build(store, [tokenizer(world())], RUNTIME).failed
    return store.root


@pytest.fixture
def copied(built, tmp_path):
    """A copy of that store, which a test may change."""
    return Store(shutil.copytree(built, tmp_path / "store"))


def test_a_name_is_the_whole_ancestry():
    assert tokenizer(world(0)).name == tokenizer(world(0)).name != tokenizer(world(1)).name
    assert (
        Recipe("soaes.stages.x.f", {"lr": 1.0}).name == Recipe("soaes.stages.x.f", {"lr": 1}).name
    )
    assert (
        Recipe("soaes.stages.x.f", {"lr": 1.5}).name != Recipe("soaes.stages.x.f", {"lr": 1}).name
    )
    assert (
        Recipe("soaes.stages.x.f", {"on": True}).name != Recipe("soaes.stages.x.f", {"on": 1}).name
    )


def test_a_name_survives_a_move_of_the_code_and_not_a_revision():
    """Stages and options are known by their declared names, wherever their code lies."""
    option = {"_target_": "soaes.data.packing.best_fit", "_partial_": True}
    moved = {"_target_": "soaes.elsewhere.best_fit", "_partial_": True}
    here, there = (
        Recipe("soaes.stages.prepare.pack", {"packing": packing, "taus": [packing]})
        for packing in (option, moved)
    )
    assert here.name == there.name == Recipe("soaes.other.pack", here.arguments).name
    assert here.name != Recipe("soaes.stages.prepare.fill", here.arguments).name
    assert here.name != Recipe("soaes.stages.prepare.pack", here.arguments | {"revision": 2}).name
    assert (
        here.name
        != Recipe(
            "soaes.stages.prepare.pack", here.arguments | {"packing": option | {"revision": 2}}
        ).name
    )


def test_a_revision_is_hashed_and_not_passed_on(tmp_path):
    store = Store(tmp_path)
    stage = Recipe("soaes.stages.prepare.world", {"seed": 0, **SIZES, "revision": 2})
    assert stage.name != world().name and stage.name in builder.build(store, [stage], RUNTIME).built
    schedule = {
        "_target_": "soaes.model.settings.ConstantSchedule",
        "warmup": 0.1,
        "revision": 3,
    }
    assert worker.realise(schedule, store) == ConstantSchedule(warmup=0.1)
    bound = schedule | {"_partial_": True}
    assert worker.realise(bound, store).keywords == {"warmup": 0.1}


def test_shared_ancestors_are_built_once_and_found_again(tmp_path):
    store = Store(tmp_path)
    goals = [tokenizer(world(), size) for size in (600, 700)]
    outcome = builder.build(store, goals, RUNTIME)
    assert not outcome.failed and len(outcome.built) == 3 and len(store.names("world")) == 1
    for goal in goals:
        store.verify(goal.name)
        assert read_recipe(store, goal.name).name == goal.name, "the written lineage is the recipe"
    assert builder.build(store, goals, RUNTIME).built == {}
    assert not any(store.root.joinpath("unfinished").iterdir())


def test_a_failing_stage_leaves_the_others_standing_and_says_why(tmp_path):
    store = Store(tmp_path)
    bad, good = tokenizer(world(), 100), tokenizer(world(), 600)
    below = Recipe(
        "soaes.stages.prepare.pack",
        {
            "documents": world(),
            "tokenizer": bad,
            "sources": ["qa"],
            "categories": None,
            "context": 64,
            "packing": {},
        },
    )
    outcome = builder.build(store, [bad, below, good], RUNTIME)
    assert set(outcome.failed) == {bad.name, below.name} and store.holds(good.name)
    assert (
        "vocabulary=100" in outcome.failed[bad.name] and "512 or more" in outcome.failed[bad.name]
    )
    assert bad.name in outcome.failed[below.name]
    assert (
        not store.holds(bad.name)
        and "Traceback" in (store.unfinished(bad.name) / "error.txt").read_text()
    )


def _build(root, goals, queue):
    queue.put(builder.build(Store(root), goals, RUNTIME).failed)


def test_the_stages_that_start_without_torch_do_not_load_it():
    light = {"annotation", "corpus", "curate", "labelling", "pair_review", "prepare", "synthesis"}
    modules = {path.stem for path in (Path(worker.__file__).parent.parent / "stages").glob("*.py")}
    for name in modules - {"__init__"}:
        recipe = Recipe(f"soaes.stages.{name}.f", {})
        assert builder.computes(recipe) == (name not in light), name
    imports = ", ".join(f"soaes.stages.{name}" for name in sorted(light))
    load = f"import sys; import {imports}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "pytorch_lightning"} & set(ran.stdout.split())


def test_two_sweeps_at_once_build_a_shared_ancestor_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    sweeps = [
        context.Process(target=_build, args=(tmp_path, [tokenizer(world(), size)], queue))
        for size in (600, 700)
    ]
    for process in sweeps:
        process.start()
    assert [queue.get(timeout=300) for _ in sweeps] == [{}, {}]
    store = Store(tmp_path)
    assert len(store.names("world")) == 1 and len(store.names("tokenizer")) == 2
    store.verify(store.names("world")[0])


def _held(root, recipe, ready):
    with Store(root).build(recipe) as out:
        (out / "half.txt").write_text("half of it")
        ready.set()
        time.sleep(600)


def test_a_killed_stage_leaves_nothing_under_its_name_and_its_rerun_completes(tmp_path):
    context, store, recipe = multiprocessing.get_context("spawn"), Store(tmp_path), world()
    ready = context.Event()
    victim = context.Process(target=_held, args=(tmp_path, recipe, ready))
    victim.start()
    assert ready.wait(300)
    os.kill(victim.pid, signal.SIGKILL)
    victim.join()
    assert not store.holds(recipe.name) and (store.unfinished(recipe.name) / "half.txt").exists()
    assert list(builder.build(store, [recipe], RUNTIME).built) == [recipe.name]
    assert not (store.folder(recipe.name) / "half.txt").exists()
    store.verify(recipe.name)


def test_a_changed_file_is_found(copied):
    store, recipe = copied, world()
    path = store.folder(recipe.name) / "corpus.jsonl"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="corpus.jsonl is not what"):
        store.verify(recipe.name)


def test_a_full_disk_leaves_nothing_under_a_final_name(tmp_path):
    """A file-size limit stands in for a full disk: both end a write half-way with an OSError."""
    store, recipe = Store(tmp_path), world()
    context = multiprocessing.get_context("spawn")
    victim = context.Process(target=_limited, args=(tmp_path, recipe))
    victim.start()
    victim.join(300)
    assert not store.holds(recipe.name)
    assert "File too large" in (store.unfinished(recipe.name) / "reason.txt").read_text()
    assert list(builder.build(store, [recipe], RUNTIME).built) == [recipe.name]


def test_a_full_disk_is_told_with_the_file_that_it_kept_as_it_was(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("before")
    with pytest.raises(OSError) as full, atomic_write(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert full.value.filename == str(path)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "metrics.json"
    for content in (b'{"rouge1": 7', b'"\xe5\x9b'):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{path} is damaged .*; delete its folder"):
            read_json(path)


def _limited(root, recipe):
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
    builder.build_stage(Store(root), recipe, RUNTIME, exclusive=False)


def test_a_written_recipe_is_plain_yaml_that_names_its_parents(built):
    store, goal = Store(built), tokenizer(world())
    written = yaml.safe_load((store.folder(goal.name) / "recipe.yaml").read_text())
    assert written == {
        "_target_": "soaes.stages.prepare.tokenizer",
        "documents": {"_store_": world().name},
        "vocabulary": 600,
    }
    manifest = store.manifest(goal.name)
    assert {"files", "seconds", "commit", "source", "machine", "versions"} <= set(manifest)


def test_a_recipe_is_read_though_an_ancestors_folder_is_gone(copied):
    store, goal = copied, tokenizer(world())
    shutil.rmtree(store.folder(world().name))
    assert read_recipe(store, goal.name).name == goal.name
    assert list(builder.missing(store, [goal])) == []


def test_a_changed_parent_is_refused(copied):
    store, goal = copied, tokenizer(world(), 700)
    with open(store.folder(world().name) / "general.jsonl", "a", encoding="utf-8") as handle:
        handle.write("{}\n")
    outcome = builder.build(store, [goal], RUNTIME)
    assert "general.jsonl is not what" in outcome.failed[goal.name]


def test_wandb_that_fails_fails_no_stage(tmp_path):
    (tmp_path / "taken").write_text("a file where the folder should be")
    logger = LoggerSettings(mode="offline", folder=str(tmp_path / "taken"))
    store = Store(tmp_path / "store")
    assert not builder.build(store, [world()], replace(RUNTIME, logger=logger)).failed
    assert "continuing without it" in (store.folder(world().name) / "log.txt").read_text()


def test_every_stage_is_an_offline_wandb_run_that_is_finished(tmp_path):
    logger = LoggerSettings(mode="offline", folder=str(tmp_path / "wandb"))
    store = Store(tmp_path / "store")
    outcome = builder.build(
        store, [world(), tokenizer(world(), 100)], replace(RUNTIME, logger=logger)
    )
    assert list(outcome.failed) == [tokenizer(world(), 100).name]
    runs = sorted((tmp_path / "wandb" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(runs) == 2
    ends = [
        subprocess.run(
            [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", run.parent],
            capture_output=True,
            text=True,
        ).stdout
        for run in runs
    ]
    assert sorted("exit code 0" in end for end in ends) == [False, True] and all(
        "finished" in end or "exit code" in end for end in ends
    )


def test_a_training_stage_killed_at_work_is_built_by_the_next_run(tmp_path):
    words = [
        "goal=target.base",
        *SMALL_WORLD,
        *SMALL_MODELS,
        "logger=none",
        "optim.general.max_tokens=80_000",
        f"runtime.store={tmp_path / 'store'}",
    ]
    (row,) = sweep.jobs(words)
    store = Store(tmp_path / "store")
    failed = {}
    building = threading.Thread(
        target=lambda: failed.update(builder.build(store, [row.recipe], row.runtime).failed)
    )
    building.start()
    curves, deadline = store.unfinished(row.recipe.name) / "curves.jsonl", time.monotonic() + 300
    while not curves.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(writer(curves.with_name("log.txt")), signal.SIGKILL)
    building.join(timeout=300)
    assert "killed by signal 9" in failed[row.recipe.name]
    assert (
        not store.holds(row.recipe.name)
        and not builder.build(store, [row.recipe], row.runtime).failed
    )
    store.verify(row.recipe.name)


def writer(path):
    """The process that has a file open: of a stage's log, the stage."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(link) == str(path) for link in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:
            continue  # not ours to look into, or over
    raise AssertionError(f"nobody writes {path}")


def test_locks_are_asked_for_as_nfs_grants_them(tmp_path, monkeypatch):
    """Shared ones of files that may be read, exclusive ones of files that may be written."""
    store, asked = Store(tmp_path), []

    def flock(handle, operation):
        asked.append(operation)
        if not (handle.readable() if operation & fcntl.LOCK_SH else handle.writable()):
            raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", flock)
    with store.lock("machine", shared=True), store.lock("sft-1"):
        store.is_locked("sft-1")
        monkeypatch.setattr(os, "access", lambda path, mode: False)  # another user's
        store.is_locked("sft-1")
    there = [fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_SH | fcntl.LOCK_NB]
    assert asked == [fcntl.LOCK_SH, fcntl.LOCK_EX, *there]


def test_ctrl_c_while_lightning_trains_is_an_interruption(tmp_path, monkeypatch):
    def run(*given):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)  # as Lightning does

    store = Store(tmp_path)
    store.unfinished("sft-1").mkdir(parents=True)
    monkeypatch.setattr(worker, "run", run)
    monkeypatch.setattr(worker, "read_recipe", lambda *given: None)
    monkeypatch.setattr(worker, "_redirect_output", lambda path: None)
    with pytest.raises(SystemExit):
        worker.main(store, "sft-1", Runtime(tmp_path))
    written = (store.unfinished("sft-1") / "reason.txt").read_text()
    assert written.startswith("KeyboardInterrupt") and not store.failure("sft-1")
