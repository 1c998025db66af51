"""Laws of writing the teacher store: a killed writer goes on at its shard and ends with the same bytes, and never with another's."""

import itertools
import multiprocessing
import os
import random
import signal
import sys
import time

import pytest
import torch
from signal_stores import TOKENS_R, by_format, contents, flipped, load, teacher_and_rows, write

from soaes.data import shards
from soaes.model import signals
from soaes.recipe import Recipe, Store
from soaes.stages import teach


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 200)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy")
    teacher_and_rows(root)
    return root



@by_format
def test_a_writer_that_ended_at_any_row_goes_on_at_its_shard(tmp_path, format):
    write(tmp_path / "whole", format)
    each = load(tmp_path / "whole").contract["rows_per_shard"]
    for die_at in range(len(TOKENS_R)):
        out, asked = tmp_path / f"{die_at}", []
        with pytest.raises(KeyboardInterrupt):
            write(out, format, die_at=die_at)
        write(out, format, asked)
        assert asked == list(range(die_at // each * each, len(TOKENS_R))), "whole shards are not computed again"
        assert contents(out) == contents(tmp_path / "whole")


def killed(out, files=None, after=60.0):
    """Write in a forked process that the kernel kills as it begins or renames its `files`th file, or `after` seconds. False if it ended before."""
    process = os.fork()
    if not process:
        count = itertools.count()

        def ends(event, arguments):
            if (event == "os.rename" or event == "open" and str(arguments[0]).endswith(".part")) and next(count) == files:
                os.kill(os.getpid(), signal.SIGKILL)

        torch.set_num_threads(1)
        sys.addaudithook(ends)
        try:
            write(out)
        finally:
            os._exit(0)
    if files is None:
        time.sleep(after)
        os.kill(process, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


def test_a_writer_killed_between_any_two_files_ends_with_the_same_bytes(tmp_path):
    write(tmp_path / "whole")
    whole, files = contents(tmp_path / "whole"), 0
    while killed(tmp_path / f"{files}", files):
        write(tmp_path / f"{files}")
        assert contents(tmp_path / f"{files}") == whole
        files += 1
    assert files == 4 * (len(whole) - 1) + 3, "each file and the contract after it are begun and renamed; the last contract, the folder"


@pytest.mark.parametrize("times", [12, pytest.param(400, marks=pytest.mark.nightly)])
def test_a_writer_killed_at_any_instant_ends_with_the_same_bytes(tmp_path, times):
    began = time.monotonic()
    write(tmp_path / "whole")
    seconds, rng, kills = time.monotonic() - began, random.Random(0), 0
    for at in range(times):
        out = tmp_path / f"{at}"
        while not (out / "signal").exists():
            kills += killed(out, after=rng.uniform(0, 1.5 * seconds))
        assert contents(out) == contents(tmp_path / "whole")
    assert kills >= times / 4


def test_what_is_no_longer_whole_is_written_again(tmp_path, capsys):
    write(tmp_path / "whole")
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        write(out, die_at=11)
    flipped(out / "resume" / "shard-00001.npy", 1000)
    each, asked = load(tmp_path / "whole").contract["rows_per_shard"], []
    write(out, asked=asked)
    assert asked[:each] == list(range(each, 2 * each)) and contents(out) == contents(tmp_path / "whole")
    assert not capsys.readouterr().out


@pytest.mark.parametrize("change", ["teacher", "contract"])
def test_a_writer_never_goes_on_with_anothers_shards(tmp_path, capsys, change):
    write(tmp_path / "whole")
    out, asked = tmp_path / "out", []
    with pytest.raises(KeyboardInterrupt):
        write(out, die_at=11, **({"teacher": "another"} if change == "teacher" else {}))
    if change == "contract":
        flipped(out / "resume" / "contract.json", 1000)
    write(out, asked=asked)
    assert asked == list(range(12)) and contents(out) == contents(tmp_path / "whole")
    assert "it is written anew" in capsys.readouterr().out


FORKS = multiprocessing.get_context("forkserver")


def stage(root, toy):
    """As a worker builds it."""
    shards.SHARD_BYTES = 3000
    torch.set_num_threads(1)
    with Store(root).build(Recipe("soaes.stages.teach.teach", {})) as out:
        teach.teach(toy / "target", toy / "rows", signals.Sampled(8, (1.0, 2.0)), out=out)


def stages(root, toy, instants):
    """Kill the stage at each of the instants, seconds from its start; then let it end. Its files, and how many were killed on the way."""
    FORKS.set_forkserver_preload(["transformers.models.qwen2.modeling_qwen2", "soaes.stages.teach", "soaes.model.causal_lm"])
    killed = 0
    for instant in (*instants, None):
        process = FORKS.Process(target=stage, args=(root, toy))
        process.start()
        process.join(instant)
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        for folder in root.glob("teach-*"):
            return contents(folder), killed


@pytest.mark.nightly
def test_a_stage_killed_at_many_instants_ends_with_the_same_bytes(toy, tmp_path):
    whole, _ = stages(tmp_path / "first", toy, [])
    began = time.monotonic()
    stages(tmp_path / "second", toy, [])
    seconds, rng, kills = time.monotonic() - began, random.Random(0), 0
    for at in range(10):
        made, killed = stages(tmp_path / f"{at}", toy, [rng.uniform(0, seconds) for _ in range(3)])
        kills += killed
        assert made == whole
    assert kills >= 10
