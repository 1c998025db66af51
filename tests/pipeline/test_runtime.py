"""How stages are run: checked when created, the same after JSON, and applied by the worker."""

import json
import pickle
from pathlib import Path

import pytest
import torch

from soaes.pipeline import compose, sweep, worker
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.runtime import Execution, LoggerSettings, Runtime
from soaes.pipeline.store import Store


@pytest.mark.parametrize("logger", ["none", "wandb"])
@pytest.mark.parametrize("name", ["cpu", "one_gpu", "one_gpu_offload", "fsdp2", "a800x8"])
def test_a_composed_runtime_survives_json_and_pickle(name, logger):
    cfg = compose.compose_job([f"runtime={name}", f"logger={logger}"])
    runtime = compose.runtime_settings(cfg)
    assert Runtime.from_plain(json.loads(json.dumps(runtime.to_plain()))) == runtime
    assert pickle.loads(pickle.dumps(runtime)) == runtime


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda: Execution(device="gpu"), "device=gpu: must be cpu or cuda, or one GPU"),
        (lambda: Execution(threads=0), "threads=0: must be a whole number of at least 1"),
        (lambda: Execution(compile="yes"), "compile=yes: must be true or false"),
        (
            lambda: Execution(compile=True, attention="documents"),
            "compile=true: .*set runtime.execution.attention=sdpa, or compile=false",
        ),
        (lambda: Execution(strategy="fsdp"), "strategy=fsdp: must be one of auto, ddp, fsdp2"),
        (
            lambda: Execution(strategy="zero3", compile=True),
            "compile=true: not supported where strategy=zero3 shards.*compile=false",
        ),
        (
            lambda: Execution(devices=2, strategy="ddp", cpu_offload=True),
            "cpu_offload=true: strategy=ddp on 2 devices keeps all on the device; set .*fsdp2",
        ),
        (
            lambda: Execution("cuda:2", devices=4),
            "device=cuda:2: each rank .* takes a GPU of its own.*CUDA_VISIBLE_DEVICES=2 for",
        ),
        (
            lambda: Execution("cuda:2", strategy="zero3", cpu_offload=True),
            "device=cuda:2: each rank",
        ),
        (
            lambda: Execution(devices=2, cpu_offload=True),
            "cpu_offload=true: with strategy=fsdp2 it is for GPUs alone",
        ),
        (lambda: LoggerSettings(mode="on"), "mode=on: must be one of disabled, offline, online"),
        (lambda: LoggerSettings(mode="offline"), "logger.folder=None: .*or logger=none"),
        (
            lambda: LoggerSettings(mode="offline", folder="wandb", project=None),
            "logger.project=null: must be the name of a W&B project",
        ),
        (lambda: LoggerSettings(project=" "), "logger.project= : must be the name"),
        (lambda: LoggerSettings(folder=3), "logger.folder=3: must be the path of a folder"),
        (
            lambda: LoggerSettings(tags="tiny"),
            "logger.tags=tiny: must be a list of words",
        ),
        (lambda: LoggerSettings(tags=["x" * 65]), "logger.tags=x+: .*of 1 to 64 characters"),
        (lambda: Runtime(Path("store"), parallel_stages=0), "parallel_stages=0: must be"),
    ],
    ids=[
        "device",
        "threads",
        "compile",
        "compiled-documents",
        "strategy",
        "compiled-shares",
        "offload-of-what-is-whole",
        "ranks-on-one-gpu",
        "a-rank-on-a-numbered-gpu",
        "offload-to-where-it-is",
        "mode",
        "folder",
        "project-null",
        "project-blank",
        "folder-a-number",
        "tags-a-word",
        "tag-too-long",
        "parallel_stages",
    ],
)
def test_a_setting_out_of_its_range_is_refused(create, message):
    with pytest.raises(ValueError, match=message):
        create()


@pytest.mark.parametrize("mode", ["disabled", "offline", "online"])
def test_the_variable_of_wandb_is_obeyed_unless_the_command_line_says_otherwise(
    monkeypatch, tmp_path, mode
):
    """Also where the same words were composed under another value before."""
    monkeypatch.setenv("SOAES_STORE", str(tmp_path))

    def composed(*words):
        (job,) = sweep.jobs(["goal=data.documents", *words])
        return job.runtime.logger.mode

    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert composed() == "offline"
    monkeypatch.setenv("WANDB_MODE", mode)
    assert composed() == mode
    assert composed("logger.mode=offline") == "offline" and composed("logger=none") == "disabled"
    for word, meaning in {"": "offline", "dryrun": "offline", "run": "online"}.items():
        monkeypatch.setenv("WANDB_MODE", word)
        assert composed() == meaning
    monkeypatch.setenv("WANDB_MODE", "maybe")
    with pytest.raises(ValueError, match="mode=maybe: must be one of .*of WANDB_MODE"):
        composed()


def test_an_unknown_setting_is_named_with_the_nearest_one():
    plain = Runtime(Path("store")).to_plain()
    plain["execution"]["thread"] = 2
    with pytest.raises(ValueError, match="runtime.execution.thread: .*Did you mean threads"):
        Runtime.from_plain(plain)


@pytest.fixture
def restored_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("arguments", "threads"),
    [({}, 2), ({"threads": 3}, 3)],
    ids=["of-the-execution", "of-the-recipe"],
)
def test_the_worker_sets_the_threads_of_a_stage(
    tmp_path, monkeypatch, restored_threads, arguments, threads
):
    seen = []

    def stage(*, out, execution, threads=None):
        seen.append(torch.get_num_threads())

    monkeypatch.setattr(worker, "locate", lambda target: stage)
    runtime = Runtime(tmp_path, execution=Execution(threads=2))
    torch.set_num_threads(1)
    worker.run(Store(tmp_path), Recipe("soaes.stages.train.cpt", arguments), runtime, tmp_path)
    assert seen == [threads]


def test_the_worker_leaves_the_threads_of_other_stages(tmp_path, monkeypatch, restored_threads):
    seen = []
    monkeypatch.setattr(
        worker, "locate", lambda _: lambda *, out: seen.append(torch.get_num_threads())
    )
    torch.set_num_threads(1)
    runtime = Runtime(tmp_path, execution=Execution(threads=2))
    worker.run(Store(tmp_path), Recipe("soaes.stages.export.export", {}), runtime, tmp_path)
    assert seen == [1]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        pytest.param("exclusive_stages", "speed", "must be a list of stages", id="a-word"),
        pytest.param("torchrun", "sft", "must be a list of stages", id="a-word-for-torchrun"),
        pytest.param("exclusive_stages", ["sped"], "must be one of", id="misspelt"),
        pytest.param("torchrun", None, "must be a list of stages", id="null"),
    ],
)
def test_stages_that_run_otherwise_are_a_list_of_known_names(name, value, message):
    (job,) = sweep.jobs(["goal=rows.stage2", "logger=none"])
    with pytest.raises(ValueError, match=message):
        Runtime.from_plain(job.runtime.to_plain() | {name: value})
