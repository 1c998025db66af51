"""Laws of resuming: a stage killed at any moment ends bit for bit as an uninterrupted one.

A damaged checkpoint is never trained on.
"""

import os
import random
import resource
import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from soaes.data import chat, token_store
from soaes.data.datamodule import PackedDataModule, PackedRows
from soaes.model import callbacks, train_state
from soaes.model.train_state import TrainState
from soaes.pipeline import provenance
from soaes.pipeline.runtime import Execution
from tests.helpers import forks
from tests.helpers.mortals import EVERY_STEP, STEPS, build, die, killed, outcome, prepare, rows

TIMES = ("train/tokens_per_s", "seconds")
STAGES = ("pretrain", "cpt", "sft", "distill")

# What training and teaching import and no weight or soft target depends on: how stages are run,
# the names of metrics, and decoding, of which teaching uses vLLM's reader alone.
NOT_COMPUTING = ("pipeline/*.py", "metrics/schema.py", "decode/**/*.py")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy")
    prepare(root)
    return root


@pytest.fixture(scope="module")
def uninterrupted(toy, tmp_path_factory):
    """What each stage leaves when nothing happens."""
    return {
        stage: outcome(
            build(toy, tmp_path_factory.mktemp(stage), stage, Execution(micro_batch_size=1))
        )
        for stage in STAGES
    }


@pytest.mark.parametrize(
    "stage, step, part",
    [
        ("pretrain", 3, 0),
        ("cpt", 1, 2),
        ("cpt", 9, 3),
        ("sft", 5, 1),
        ("sft", 0, 3),
        ("distill", 4, 3),
    ],
)
def test_a_killed_stage_ends_as_if_nothing_had_happened(
    toy, tmp_path, uninterrupted, stage, step, part, capsys
):
    killed(toy, tmp_path, stage, step, part)
    ended = build(toy, tmp_path, stage)
    assert outcome(ended) == uninterrupted[stage]
    assert not (ended / "resume").exists()
    assert (f"continuing after step {step}" in capsys.readouterr().out) == (step > 0)


def test_optimizer_schedule_and_generators_go_on_bit_for_bit(toy, tmp_path):
    at_once = killed(toy, tmp_path / "one", "distill", STEPS - 1)
    for step in (2, 6, STEPS - 1):
        in_parts = killed(toy, tmp_path / "two", "distill", step)
    state_at_once, state_in_parts = (
        torch.load(folder / "resume" / f"step-{STEPS - 1:08d}" / "state.pt", weights_only=True)
        for folder in (at_once, in_parts)
    )
    for state in (state_at_once, state_in_parts):
        del state["seconds"]
        state["curve"] = [untimed(line) for line in state["curve"]]
    assert same(state_at_once, state_in_parts) and len(state_at_once["optimizer"]["state"]) > 10


def test_a_checkpoint_due_within_a_step_waits_for_its_end(toy, tmp_path, uninterrupted):
    patient = replace(EVERY_STEP, checkpoint_every=0.3)
    killed(
        toy,
        tmp_path,
        "cpt",
        2,
        part=3,
        happens={(2, 1): partial(time.sleep, 0.3)},
        execution=patient,
    )
    assert outcome(build(toy, tmp_path, "cpt")) == uninterrupted["cpt"]


def untimed(line):
    """A line of the curve without the times that it took."""
    return {key: value for key, value in line.items() if key not in TIMES}


def same(first, second):
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


@pytest.mark.parametrize("num_workers, ends", [(0, [4]), (0, [2, 7]), (0, [1, 5, 8]), (2, [3, 6])])
def test_the_order_of_samples_and_validations_is_a_function_of_the_step(
    toy, tmp_path, num_workers, ends
):
    straight, seen = [], []
    build(toy, tmp_path / "one", "cpt", Execution(micro_batch_size=2), seen=straight)
    execution = replace(EVERY_STEP, micro_batch_size=2, num_workers=num_workers)
    for step in ends:
        killed(toy, tmp_path / "two", "cpt", step, execution=execution, seen=seen)
    build(toy, tmp_path / "two", "cpt", execution, seen=seen)
    assert (
        seen == straight and len(straight) == 2 * STEPS + 5
    )  # validations: one before, four at the ends of quarters


@pytest.mark.parametrize("num_workers", [1, 2])
def test_loaders_change_no_batch(toy, num_workers):
    digest = chat.tokenizer_digest(toy / "target")
    train_rows, dev = (token_store.load(toy / "rows" / split, digest) for split in ("train", "dev"))
    own, read_ahead = (
        PackedDataModule(train_rows, dev, 4, 1, 2, 0, num_workers=count, start=3).train_dataloader()
        for count in (0, num_workers)
    )
    assert all(same(first, second) for first, second in zip(own, read_ahead, strict=True)) and len(
        own
    ) == 4 * (STEPS - 3)


def test_a_micro_batch_without_rows_has_no_soft_targets():
    class Store:
        def rows(self, which):
            return {"hidden": torch.ones(10 * len(which), 3)}

    some, none = PackedRows(rows(4, 0), [(np.array([1, 2]), 40), (np.array([], int), 40)], Store())
    assert some["soft_targets"]["hidden"].shape == (20, 3) and none["soft_targets"][
        "hidden"
    ].shape == (0, 3)
    assert (none["labels_BT"] == token_store.IGNORE).all() and (
        some["labels_BT"] != token_store.IGNORE
    ).any()


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "truncated": (lambda path: os.truncate(path / "state.pt", 1000), "has 1,000 bytes of"),
    "empty": (lambda path: os.truncate(path / "state.pt", 0), "has 0 bytes of"),
    "flipped": (lambda path: flipped(path / "state.pt"), "fails its checksum"),
    "zeroed": (
        lambda path: (path / "state.pt").write_bytes(bytes((path / "state.pt").stat().st_size)),
        "fails its checksum",
    ),
    "missing": (lambda path: (path / "state.pt").unlink(), "No such file"),
    "without manifest": (lambda path: (path / "manifest.json").unlink(), "No such file"),
    "of a zeroed manifest": (
        lambda path: (path / "manifest.json").write_bytes(bytes(100)),
        "Expecting value",
    ),
    "of a flipped manifest": (lambda path: flipped(path / "manifest.json"), ""),
    "mixed": (
        lambda path: shutil.copy(path.parent / "step-00000004" / "manifest.json", path),
        "state.pt",
    ),
    "another's": (
        lambda path: shutil.copytree(path.parent / "step-00000004", path, dirs_exist_ok=True),
        "it holds step 4",
    ),
}


@pytest.fixture(scope="module")
def left(toy, tmp_path_factory):
    """What a stage killed in step 5 leaves: the checkpoints of steps 4 and 5."""
    return killed(toy, tmp_path_factory.mktemp("left"), "sft", 5)


def copied(left, tmp_path):
    return shutil.copytree(left, tmp_path / "unfinished" / left.name)


def contract(folder):
    return torch.load(folder / "resume" / "step-00000004" / "state.pt", weights_only=True)[
        "contract"
    ]


@pytest.mark.parametrize("damage, why", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_and_says_why(
    left, tmp_path, damage, why, capsys
):
    folder = copied(left, tmp_path)
    assert train_state.load_newest(folder / "resume", contract(left)).step == 5
    damage(folder / "resume" / "step-00000005")
    assert train_state.load_newest(folder / "resume", contract(left)).step == 4
    printed = capsys.readouterr().out
    assert "step-00000005 is skipped" in printed and why in printed
    assert "continuing after step 4" in printed


def test_a_stage_whose_last_checkpoint_is_damaged_ends_as_if_nothing_had_happened(
    toy, left, tmp_path, uninterrupted
):
    flipped(copied(left, tmp_path) / "resume" / "step-00000005" / "state.pt")
    assert outcome(build(toy, tmp_path, "sft")) == uninterrupted["sft"]


def test_a_stage_without_a_good_checkpoint_starts_anew_and_says_so(
    toy, left, tmp_path, uninterrupted, capsys
):
    for path in (copied(left, tmp_path) / "resume").iterdir():
        flipped(path / "state.pt")
    assert outcome(build(toy, tmp_path, "sft")) == uninterrupted["sft"]
    assert "no usable checkpoint; starting from step 0" in capsys.readouterr().out


@pytest.mark.parametrize("changed", ["stage", "rows", "seed", "global_batch_size", "code", "torch"])
def test_a_checkpoint_of_another_run_is_not_taken_up(left, changed, capsys):
    assert train_state.load_newest(left / "resume", {**contract(left), changed: "another"}) is None
    printed = capsys.readouterr().out
    assert (
        f"{changed}={contract(left)[changed]}, now another" in printed
        and "starting from step 0" in printed
    )


def test_a_checkpoint_of_another_layout_is_refused_and_kept(left):
    """Shares of eight ranks are no state of one process; hours of training are not dropped."""
    folder = left / "resume"
    with pytest.raises(
        ValueError, match="step 5 .* written as whole, .* would read zero3 .*delete the folder"
    ):
        train_state.load_newest(folder, contract(left), "zero3 on 8 devices")
    assert len(list(folder.iterdir())) == 2


def test_two_checkpoints_are_kept(left):
    assert sorted(path.name for path in (left / "resume").iterdir()) == [
        "step-00000004",
        "step-00000005",
    ]


def test_a_save_that_fails_stops_the_stage_and_leaves_the_one_before(
    toy, tmp_path, uninterrupted, monkeypatch
):
    """A file-size limit stands in for a full disk: both end a write half-way."""
    folder = killed(toy, tmp_path, "sft", 3)
    before = {path: path.read_bytes() for path in (folder / "resume").rglob("*") if path.is_file()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(
            OSError, match="no checkpoint of step 4 .*File too large.*checkpoint_every=0"
        ):
            build(toy, tmp_path, "sft")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert before == {
        path: path.read_bytes() for path in (folder / "resume").rglob("*") if path.is_file()
    }
    with monkeypatch.context() as disk:
        disk.setattr(os, "replace", no_space_for_checkpoints(os.replace))
        with pytest.raises(OSError, match="no checkpoint of step 4 .*No space left"):
            build(toy, tmp_path, "sft")
    assert before == {
        path: path.read_bytes() for path in (folder / "resume").rglob("*") if path.is_file()
    }
    assert outcome(build(toy, tmp_path, "sft")) == uninterrupted["sft"]


def fail(number, *_):
    raise OSError(number, os.strerror(number))


def no_space_for_checkpoints(replace):
    """A rename that fails for checkpoints alone: the store renames its own files too."""

    def replace_or_fail(source, target):
        if Path(target).name.startswith("step-"):
            fail(28)
        replace(source, target)

    return replace_or_fail


def test_a_disk_too_small_for_checkpoints_is_refused_before_the_first_step(
    toy, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6 - 1000, 1000)
    )
    seen = []
    with pytest.raises(
        ValueError,
        match=r"checkpoints need [\d.]+ kB more in .*resume, 1.0 kB are free; "
        r"free some space.*checkpoint_every=0",
    ):
        build(toy, tmp_path, "sft", seen=seen)
    assert seen == [(0, "validation")], "no step was taken"


def begin(folder, module, free, monkeypatch):
    """What a stage of `module` does before its first step, with `free` bytes on the disk."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, free))
    callbacks.CheckpointCallback(TrainState({}), folder, 1.0).on_train_start(None, module)


def test_room_is_asked_for_what_checkpoints_will_hold(tmp_path, monkeypatch):
    """A weight of 4 MB takes 12 MB with its two moments, three times.

    It counts alone where it is not trained, and once where two layers share it.
    """
    layer, folder = torch.nn.Linear(1000, 1000, bias=False), tmp_path / "resume"
    tied = torch.nn.ModuleList([layer, layer])
    for module in (layer, tied):
        with pytest.raises(ValueError, match="need 36.0 MB more .*, 36.0 MB are free"):
            begin(folder, module, 36_000_000 - 1, monkeypatch)
        begin(folder, module, 36_000_000, monkeypatch)
    (folder / "step-00000001").mkdir(parents=True)
    (folder / "step-00000001" / "state.pt").write_bytes(bytes(12_000_000))
    begin(folder, layer, 24_000_000, monkeypatch)
    layer.requires_grad_(False)
    begin(folder, layer, 0, monkeypatch)


def test_a_disk_with_room_for_three_checkpoints_is_enough(toy, tmp_path, left, monkeypatch):
    size = (left / "resume" / "step-00000005" / "state.pt").stat().st_size
    monkeypatch.setattr(
        shutil,
        "disk_usage",
        lambda path: shutil._ntuple_diskusage(0, 0, callbacks.CHECKPOINTS_ON_DISK * size),
    )
    assert (build(toy, tmp_path, "sft") / "metrics.json").is_file()


def test_an_edit_of_what_no_training_reads_keeps_checkpoints(tmp_path, monkeypatch):
    ours, before = (
        shutil.copytree(Path(train_state.__file__).parent.parent, tmp_path / "soaes"),
        train_state.code_digest(),
    )
    monkeypatch.setattr(train_state, "__file__", str(ours / "model" / "train_state.py"))
    for name, same in (
        ("stages/speculate.py", True),
        ("decode/verify.py", True),
        ("model/losses.py", False),
        ("data/packing.py", False),
        ("stages/train.py", False),
        ("stages/teach.py", False),
    ):
        with open(ours / name, "a", encoding="utf-8") as handle:
            handle.write("# edited")
        after = train_state.code_digest()
        assert (after == before) == same, name
        before = after


def test_without_checkpoints_nothing_is_written_beside_the_output(toy, tmp_path):
    assert not (
        killed(toy, tmp_path, "sft", 5, execution=Execution(micro_batch_size=1)) / "resume"
    ).exists()


def in_a_process(toy, store, stage, **how):
    """Start `build` in a process of its own, which a signal can end for good."""
    process = forks.context().Process(target=build, args=(toy, store, stage), kwargs=how)
    process.start()
    return process


def kill_again_and_again(toy, store, stage, draw, kills, seconds=0.5):
    """Kill several times: in a micro-batch of some step, or at any moment of `seconds`."""
    for _ in range(kills):
        if draw.random() < 0.5:
            process = in_a_process(
                toy, store, stage, happens={(draw.randrange(STEPS), draw.randrange(4)): die}
            )
        else:
            process = in_a_process(toy, store, stage)
            while process.is_alive() and not list(store.rglob("curves.jsonl")):
                time.sleep(0.01)
            time.sleep(draw.uniform(0, seconds))
            process.kill()
        process.join()


def test_sigkill_at_any_moment_changes_nothing(toy, tmp_path, uninterrupted):
    """Of the stage that reads most; of all of them by night."""
    kill_again_and_again(toy, tmp_path, "distill", random.Random("distill"), 2)
    assert outcome(build(toy, tmp_path, "distill")) == uninterrupted["distill"]


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("stage", STAGES)
def test_sigkill_at_any_moment_changes_nothing_however_often(
    toy, tmp_path, uninterrupted, stage, seed
):
    kill_again_and_again(toy, tmp_path, stage, random.Random(f"{stage} {seed}"), 4)
    assert outcome(build(toy, tmp_path, stage)) == uninterrupted[stage]


@pytest.mark.parametrize("stage", ["train", "teach"])
def test_the_digest_covers_every_source_that_computes(stage):
    package = Path(train_state.__file__).parent.parent
    patterns = [*train_state.DIGESTED_SOURCES, *NOT_COMPUTING]
    known = {file for pattern in patterns for file in package.glob(pattern)}
    read = provenance.sources(f"soaes.stages.{stage}")
    assert package / "model" / "checkpoint.py" in read
    assert not read - known, "add it to DIGESTED_SOURCES, or here if it computes nothing"
