"""The doctor: each line that is not ok ends in a remedy, no check ends it, faults are found."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from soaes.doctor import __main__ as doctor
from soaes.doctor import configuration, finding, installation, machine, outputs
from soaes.doctor.finding import Case
from soaes.pipeline import hardware
from soaes.pipeline.store import Store
from tests.helpers.commands import without_torch
from tests.helpers.small import SMALL_WORLD

SMALL = [*SMALL_WORLD, "logger=none"]


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store that the environment names."""
    store = Store(tmp_path / "store")
    store.root.mkdir()
    monkeypatch.setenv("SOAES_STORE", str(store.root))
    monkeypatch.setattr(machine, "gpus_here", lambda: [])
    return store


def lines(*words, **options):
    found = list(doctor.examine(words, **options))
    for line in found:
        assert line.mark == "ok" or line.remedy and line.text.endswith(line.remedy)
    return {(line.what, line.mark): line.text for line in reversed(found)}


def only(check, case):
    (line,) = check(case)
    return line


def test_a_sound_machine_has_no_fault(store):
    found = lines(*SMALL, "goal=tokenizer")
    assert not [text for (_, mark), text in found.items() if mark == "fault"], found
    assert "1 job of 2 stages, 2 to run" in found["overrides", "ok"]
    assert "target and draft share tokenizer-" in found["tokenizers", "ok"]
    assert "none of their size was built here" in found["memory", "ok"]


def test_a_finding_that_is_not_ok_needs_a_remedy():
    with pytest.raises(ValueError, match="fault without a remedy"):
        finding.Finding("fault", "disk", "full")


def test_refused_overrides_are_one_fault_and_every_other_check_goes_on(store):
    found = lines("scale=smok")
    refused = found["overrides", "fault"]
    assert "Did you mean smoke" in refused
    assert "nothing is judged of memory, fit, disk, models" in found["overrides", "warning"]
    assert ("tokenizers", "ok") not in found and ("memory", "ok") in found


def test_words_that_are_no_overrides_are_one_fault(store):
    found = lines("seed")
    assert [what for what, mark in found if mark == "fault"] == ["overrides"]


def test_whatever_a_check_raises_is_a_fault_and_the_next_one_runs(store, monkeypatch):
    def broken(case):
        yield finding.ok("cores", "2")
        raise RuntimeError("no such\nthing")

    monkeypatch.setitem(machine.CHECKS, "cores", broken)
    monkeypatch.setattr(
        doctor, "GROUPS", ("installation", "machine", "gone", "outputs", "configuration")
    )
    found = lines(*SMALL)
    assert "RuntimeError: no such thing" in found["cores", "fault"]
    assert "No module named 'soaes.doctor.gone'" in found["gone", "fault"]
    assert ("memory", "ok") in found and ("store", "ok") in found


def test_a_python_without_any_library_is_diagnosed_in_a_few_lines(tmp_path):
    """As a newcomer's system Python: -S leaves the standard library alone."""
    environment = {**os.environ, "SOAES_STORE": str(tmp_path / "store"), "PYTHONPATH": os.getcwd()}
    ran = subprocess.run(
        [sys.executable, "-S", "-m", "soaes.doctor", "scale=tiny"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 1 and not ran.stderr, ran.stderr
    (fault,) = [line for line in ran.stdout.splitlines() if line.startswith("fault")]
    assert "not installed: torch, transformers" in fault
    assert "nothing is known of machine, outputs, configuration" in ran.stdout
    assert "ok       Python" in ran.stdout


def test_the_command_loads_no_torch_and_says_faults_by_its_exit_code(store):
    for words, status in ((SMALL, 0), (["runtime=a800x8"], 1)):
        program = without_torch("doctor.__main__", *words)
        environment = {**os.environ, "PATH": "", "PYTHONPATH": os.getcwd()}
        ran = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=300)
        assert ran.returncode == status and not ran.stderr, ran.stdout + ran.stderr
    assert "none here" in ran.stdout and "asks for 8" in ran.stdout


# ---------------------------------------------------------------- libraries and machine


@pytest.mark.parametrize(
    ("installed", "part"),
    [(None, "not installed: toy ("), ("2.0", "2.0, and setup.cfg asks for toy<2,>=1.2;")],
    ids=["missing", "too-new"],
)
def test_a_library_beyond_its_pin_is_a_fault(monkeypatch, installed, part):
    monkeypatch.setattr(installation, "requirements", lambda: ["toy>=1.2,<2"])
    monkeypatch.setattr(installation, "version_of", lambda name: installed)
    line = next(iter(installation.libraries(Case(()))))
    assert line.mark == "fault" and part in line.text


def test_a_build_of_a_pinned_version_fits(monkeypatch):
    monkeypatch.setattr(installation, "requirements", lambda: ["torch>=2.11,<2.14"])
    monkeypatch.setattr(installation, "version_of", lambda name: "2.13.0+cpu")
    line = only(installation.libraries, Case(()))
    assert line.mark == "ok" and "1 of 1" in line.text and "torch 2.13.0+cpu" in line.text


def test_gpus_are_counted_against_the_runtime(store, monkeypatch):
    case = Case((*SMALL, "runtime=one_gpu", "runtime.execution.device=cuda:1"))
    free, busy = machine.Gpu("A800", 81920, 81000), machine.Gpu("A800", 81920, 20000)
    monkeypatch.setattr(machine, "gpus_here", lambda: [free])
    assert "asks for 2" in only(machine.gpu, case).text
    monkeypatch.setattr(machine, "gpus_here", lambda: [free, busy])
    enough, occupied = machine.gpu(case)
    assert enough.mark == "ok" and occupied.mark == "warning" and "GPU 1 only" in occupied.text


def test_nvidia_smi_that_fails_is_a_fault_only_where_a_gpu_is_asked_for(store, monkeypatch):
    def fails():
        raise subprocess.TimeoutExpired("nvidia-smi", 20)

    monkeypatch.setattr(machine, "gpus_here", fails)
    assert only(machine.gpu, Case((*SMALL,))).mark == "warning"
    assert only(machine.gpu, Case((*SMALL, "runtime=one_gpu"))).mark == "fault"


@pytest.mark.parametrize(
    ("probe", "part"),
    [
        ("raise OSError('libcudart.so.12 is missing')", "libcudart.so.12 is missing"),
        ("import time; time.sleep(60)", "not loaded after 0.5 s"),
        ('print(\'["2.13.0+cpu", 0, "AVX2"]\')', "sees 0 GPUs"),
    ],
    ids=["broken", "hangs", "of-a-cpu"],
)
def test_torch_is_loaded_elsewhere_where_a_gpu_is_asked_for(store, monkeypatch, probe, part):
    monkeypatch.setattr(machine, "PROBE", probe)
    monkeypatch.setattr(machine, "TORCH_SECONDS", 0.5 if "sleep" in probe else 30)
    assert not list(machine.torch(Case((*SMALL,))))
    line = only(machine.torch, Case((*SMALL, "runtime=one_gpu")))
    assert line.mark == "fault" and part in line.text


@pytest.mark.parametrize(
    ("words", "mark", "remedy"),
    [
        ([], "ok", ""),
        (["runtime.parallel_stages=3"], "warning", "runtime.parallel_stages=2"),
        (["runtime.execution.threads=3"], "warning", "runtime.execution.threads=2"),
    ],
    ids=["fits", "too-many-stages", "too-many-threads"],
)
def test_cores_against_stages_and_their_threads(store, monkeypatch, words, mark, remedy):
    monkeypatch.setattr(machine, "_cores", lambda: 2)
    line = only(machine.cores, Case((*SMALL, *words)))
    assert line.mark == mark and line.remedy.endswith(remedy)


def test_a_containers_limit_counts_and_its_cache_gives_way(tmp_path, monkeypatch):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  9000 kB\nMemAvailable:  8000 kB\n")
    monkeypatch.setattr(hardware, "MEMINFO", meminfo)
    monkeypatch.setattr(hardware, "CGROUP", tmp_path)
    assert hardware.free_memory() == 8000 << 10
    for name, text in (("max", "4000000\n"), ("current", "3000000"), ("stat", "inactive_file 500")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert hardware.free_memory() == 1_000_500


def built(store, recipe, memory):
    """A finished stage that took some megabytes of memory."""
    folder = store.folder(recipe.name)
    folder.mkdir()
    (folder / "recipe.yaml").write_text(json.dumps(recipe.written))
    facts = {"files": {"out": {"bytes": 5}}, "seconds": 1.0, "peak_memory_mb": memory}
    (folder / "manifest.json").write_text(json.dumps(facts))


@pytest.mark.parametrize(
    ("memory_mb", "mark"), [(10, "ok"), (60, "warning"), (200, "warning")], ids=str
)
def test_free_memory_against_the_largest_stage_that_was_built(store, monkeypatch, memory_mb, mark):
    monkeypatch.setattr(machine, "free_memory", lambda: 100 << 20)
    words = (*SMALL, "goal=tokenizer", "runtime.parallel_stages=2")
    earlier = Case((*words, "seed=1"))
    for recipe in earlier.plan.stages.values():
        built(store, recipe, memory_mb)
    line = only(machine.memory, Case((*words, "seed=2")))
    assert line.mark == mark and ("parallel_stages=1" in line.text) == (memory_mb == 60)


def test_a_stage_that_does_not_fit_its_device_is_a_fault(store):
    words = ("scale=paper", "runtime=a800x8", "goal=teacher_logits")
    found = Case((*words, "runtime.hardware.host_memory_gb=4000"))
    with pytest.raises(ValueError, match=r"teach 72\.7B: needs .*; set teacher_logits=vllm"):
        list(machine.fit(found))
    assert only(machine.fit, Case((*SMALL, "goal=tokenizer"))).mark == "ok"


# ---------------------------------------------------------------- the store


def test_a_store_that_is_not_there_is_not_made(tmp_path, monkeypatch):
    monkeypatch.setenv("SOAES_STORE", str(tmp_path / "sotre"))
    found = lines(*SMALL)
    assert "misspelt" in found["store", "warning"] and not (tmp_path / "sotre").exists()


def test_what_a_run_left_behind_is_told_from_what_is_under_way(store):
    for name in ("cpt-0", "sft-1", "sft-2"):
        store.unfinished(name).mkdir(parents=True)
    (store.unfinished("cpt-0") / "reason.txt").write_text("out of\nmemory")
    (store.unfinished("sft-1") / "resume" / "step-1200").mkdir(parents=True)
    with store.lock("sft-2"), store.lock("machine", shared=True):
        failed, interrupted = outputs.unfinished(Case(()))
        assert "sft-2" in only(outputs.locks, Case(())).text
    assert "cpt-0 failed: out of memory" in failed.text and "error.txt" in failed.remedy
    assert "resumes it from step 1,200" in interrupted.remedy
    assert "none is held" in only(outputs.locks, Case(())).text
    assert len(list(outputs.unfinished(Case(())))) == 3


def test_findings_of_one_kind_are_counted_beyond_a_few(store):
    for index in range(finding.MAX_LISTED + 3):
        store.unfinished(f"sft-{index}").mkdir(parents=True)
    *_, last = outputs.unfinished(Case(()))
    assert "3 more" in last.value


def test_a_damaged_output_is_a_fault(store):
    store.folder("cpt-0123456789ab").mkdir()
    marks = [line.mark for line in outputs.folder(Case(()))]
    assert marks == ["ok", "fault", "fault"]


# ---------------------------------------------------------------- the configuration


def test_extras_of_the_runtime_are_looked_for(store, monkeypatch):
    monkeypatch.setattr(configuration, "version_of", lambda name: None)
    deepspeed, flash = configuration.extras(Case((*SMALL, "runtime=a800x8")))
    assert deepspeed.mark == flash.mark == "fault"
    assert ".[deepspeed]" in deepspeed.remedy and "attention=sdpa" in flash.remedy
    assert not list(configuration.extras(Case((*SMALL,))))


def test_tokenizers_of_published_models(store):
    line = only(configuration.tokenizers, Case(("scale=paper",)))
    assert line.mark == "warning" and "Qwen/Qwen2.5-72B and Qwen/Qwen2.5-7B" in line.value
    from tokenizers import Tokenizer, models

    for recipe in Case(("scale=paper", "goal=distill")).plan.stages.values():
        if recipe.stage == "fetch":
            word = recipe.arguments["repo"].removesuffix("-Instruct")
            store.folder(recipe.name).mkdir()
            tokenizer = Tokenizer(models.WordLevel({word: 0}, word))
            tokenizer.save(str(store.folder(recipe.name) / "tokenizer.json"))
    line = only(configuration.tokenizers, Case(("scale=paper",)))
    assert line.mark == "fault" and "differ" in line.value


def test_an_interrupted_vllm_is_a_warning(store, tmp_path, monkeypatch):
    case = Case((*SMALL,))
    monkeypatch.setenv("SOAES_VLLM_PYTHON", str(tmp_path / "bin" / "python"))
    line = only(configuration.vllm, case)
    assert line.mark == "warning" and "make vllm" in line.text


def test_wandb_says_mode_and_folder(store, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    (store.root / "wandb" / "wandb" / "offline-run-1").mkdir(parents=True)
    line = only(configuration.wandb, Case((*SMALL_WORLD,)))
    assert line.text.startswith("offline") and "1 offline run: `wandb sync" in line.text
    assert "disabled" in only(configuration.wandb, Case((*SMALL,))).text


def test_every_group_is_there():
    for group in doctor.GROUPS:
        assert importlib.import_module(f"soaes.doctor.{group}").CHECKS
    assert Path(doctor.__file__).name == "__main__.py"
