"""A killed writer of the teacher store resumes at its shard and ends with the same bytes.

It never resumes from another's shards.
"""

import errno
import itertools
import os
import random
import resource
import shutil
import signal
import sys
import time
from functools import partial

import pytest
import torch

from soaes.data import shards
from soaes.model import soft_targets as formats
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store, write_manifest
from soaes.stages import teach
from tests.helpers import forks, soft_target_stores
from tests.helpers.soft_target_stores import (
    FORMATS,
    TOKENS_R,
    build,
    by_format,
    contents,
    flipped,
    load,
    write,
)

small_shards, toy = soft_target_stores.small_shards, soft_target_stores.toy  # fixtures


@by_format
def test_a_writer_that_ended_at_any_row_goes_on_at_its_shard(tmp_path, soft_targets):
    write(tmp_path / "whole", soft_targets)
    each = load(tmp_path / "whole").contract["rows_per_shard"]
    for die_at in range(len(TOKENS_R)):
        out, asked = tmp_path / f"{die_at}", []
        with pytest.raises(KeyboardInterrupt):
            write(out, soft_targets, die_at=die_at)
        write(out, soft_targets, asked)
        assert asked == list(range(die_at // each * each, len(TOKENS_R))), (
            "whole shards are not computed again"
        )
        assert contents(out) == contents(tmp_path / "whole")


def killed(job, files=None, after=60.0):
    """Run a job in a forked process that is killed: as it begins or renames its `files`th file, or
    `after` seconds. False if it ended before.
    """
    process = os.fork()
    if not process:
        count = itertools.count()

        def ends(event, arguments):
            begins = event == "open" and str(arguments[0]).endswith(".part")
            if (begins or event == "os.rename") and next(count) == files:
                os.kill(os.getpid(), signal.SIGKILL)

        torch.set_num_threads(1)
        sys.addaudithook(ends)
        try:
            job()
        finally:
            os._exit(0)
    if files is None:
        time.sleep(after)
        os.kill(process, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


def test_a_writer_killed_between_any_two_files_goes_on_with_those_that_are_there(tmp_path):
    """Files are begun and renamed: recipe, each file and its contract, last contract, manifest.

    Then the folder is renamed.
    """
    folder = build(tmp_path / "whole")
    whole = contents(folder)
    rows_per_shard = load(folder).contract["rows_per_shard"]
    kills, asked = 0, []
    while killed(partial(build, out := tmp_path / f"{kills}"), kills):
        asked.clear()
        assert contents(build(out, asked)) == whole
        shards_there = max(0, (kills - 2) // 4 - 2)  # recipe, offsets and head come first
        assert asked == list(range(shards_there * rows_per_shard, len(TOKENS_R)))
        kills += 1
    recipe, each_file, last_contract, manifest, rename = 2, 4, 2, 2, 1
    num_files = len(whole) - 1  # without the contract
    assert kills == recipe + each_file * num_files + last_contract + manifest + rename
    assert not asked, "killed before its seal a store is not computed again"


@pytest.mark.parametrize("times", [12, pytest.param(400, marks=pytest.mark.nightly)])
def test_a_writer_killed_at_any_instant_ends_with_the_same_bytes(tmp_path, times):
    began = time.monotonic()
    write(tmp_path / "whole")
    seconds, rng, kills = time.monotonic() - began, random.Random(0), 0
    for index in range(times):
        out = tmp_path / f"{index}"
        while killed(partial(write, out), after=rng.uniform(0, 1.5 * seconds)):
            kills += 1
        seconds *= 0.7 if kills < index else 1  # the machine is faster than it was
        assert contents(out) == contents(tmp_path / "whole")
    assert kills >= times / 4


def test_what_is_no_longer_whole_is_written_again(tmp_path, capsys):
    write(tmp_path / "whole")
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        write(out, die_at=11)
    flipped(out / "soft_targets" / "shard-00001.npy", 1000)
    each, asked = load(tmp_path / "whole").contract["rows_per_shard"], []
    write(out, asked=asked)
    assert asked[:each] == list(range(each, 2 * each)) and contents(out) == contents(
        tmp_path / "whole"
    )
    assert not capsys.readouterr().out


@pytest.mark.parametrize("change", ["teacher", "contract"])
def test_a_writer_never_goes_on_with_anothers_shards(tmp_path, capsys, change):
    write(tmp_path / "whole")
    out, asked = tmp_path / "out", []
    with pytest.raises(KeyboardInterrupt):
        write(out, die_at=11, **({"teacher": "another"} if change == "teacher" else {}))
    if change == "contract":
        flipped(out / "soft_targets" / "contract.json", 1000)
    write(out, asked=asked)
    assert asked == list(range(12)) and contents(out) == contents(tmp_path / "whole")
    assert "it is written anew" in capsys.readouterr().out


def test_a_disk_that_cannot_hold_the_rest_is_refused_before_a_row_is_computed(
    tmp_path, monkeypatch
):
    """The rest: what a killed writer left is not asked for again."""
    out, asked, free = tmp_path / "out", [], []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, free[-1]))
    each = 4 * 6  # bytes of a token: hidden states of width 6
    free.append(each * (TOKENS_R.sum() + 20))  # and the head, of 20 ids
    with pytest.raises(KeyboardInterrupt):
        write(out, die_at=11)
    there = sum(
        int(path.stat().st_size) - 128 for path in (out / "soft_targets").glob("shard-*")
    )  # numpy's header is 128 bytes
    assert there > 0
    free.append(each * TOKENS_R.sum() - there - 1)
    with pytest.raises(
        ValueError,
        match=r"need 0.\d kB more in .*soft_targets, 0.\d kB are free; "
        "free some space, or set a format",
    ):
        write(out, asked=asked)
    assert not asked
    free.append(free[-1] + 1)
    write(out)


def test_a_disk_that_becomes_full_names_the_file_and_the_same_command_goes_on_there(
    tmp_path, monkeypatch
):
    write(tmp_path / "whole")
    out, replace, asked = tmp_path / "out", os.replace, []

    def full(source, target):
        if target.name == "shard-00001.npy":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    with monkeypatch.context() as disk:
        disk.setattr(os, "replace", full)
        with pytest.raises(
            OSError,
            match=r"soft_targets/shard-00001.npy of 0.\d kB could .* "
            "No space left on device; a new run resumes",
        ) as refusal:
            write(out)
    assert refusal.value.errno == errno.ENOSPC and not list(out.rglob("*.part"))
    write(out, asked=asked)
    assert asked[0] == load(out).contract["rows_per_shard"] and contents(out) == contents(
        tmp_path / "whole"
    )


def test_a_write_that_ends_half_way_names_the_file(tmp_path):
    """A file-size limit stands in for a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))
    try:
        with pytest.raises(
            OSError, match="head_VD.npy of 0.6 kB could not be written: File too large; a new run"
        ):
            write(tmp_path, FORMATS[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (tmp_path / "soft_targets").iterdir()] == [
        "offsets.npy",
        "contract.json",
    ]


def stage(root, toy):
    """As a worker builds it."""
    shards.SHARD_BYTES = 3000
    torch.set_num_threads(1)
    with Store(root).build(Recipe("soaes.stages.teach.teach", {})) as out:
        teach.teach(toy / "target", toy / "rows", formats.Sampled(8, (1.0, 2.0)), out=out)
        write_manifest(out)


def stages(root, toy, instants):
    """Kill the stage at each of the instants, seconds from its start; then let it end.

    Returns its files, and how many processes were killed on the way.
    """
    killed = 0
    for instant in (*instants, None):
        process = forks.context().Process(target=stage, args=(root, toy))
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
    for index in range(10):
        store, killed = stages(
            tmp_path / f"{index}", toy, [rng.uniform(0, seconds) for _ in range(3)]
        )
        kills += killed
        assert store == whole
    assert kills >= 10
