"""The GPU report: its dry run, what it counts, and what becomes of a part that fails.

No test here needs a GPU; what only a GPU has is its allocator, and graphs that are recorded.
"""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu, gpu_decode, gpu_train
from benchmarks.gpu_setting import Setting
from benchmarks.rounds import met, row
from soaes.decode.autoregressive import Autoregressive
from soaes.decode.base import Generation
from soaes.decode.engine import Engine
from soaes.model import attention, self_check

DRY = Setting(dry=True)
KEYS = ["name", "unit", "median", "low", "high", "rounds", "target", "better", "limit"]

# What an image for GPUs has not: no import may find it.
ABSENT = "hydra omegaconf antlr4 wandb nltk datasets lm_eval deepspeed vllm peft flash_attn"
WITHOUT = """
import runpy, sys
from importlib.machinery import PathFinder

class Image(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}.split():
            return None
        return super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Image
sys.argv = ["benchmarks.gpu", "dry=1", "out={out}", "commit=abc"]
runpy.run_module("benchmarks.gpu", run_name="__main__", alter_sys=True)
"""


def test_the_dry_run_makes_every_part_of_what_an_image_has(tmp_path):
    code = WITHOUT.format(absent=ABSENT, out=tmp_path / "gpu.json")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert ran.returncode == 0, ran.stderr
    written = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert list(written["parts"]) == list(gpu.PARTS) and written["commit"] == "abc"
    assert all(part["status"] == gpu.DONE for part in written["parts"].values())
    results = {result["name"]: result for result in written["results"]}
    assert len(results) == len(written["results"]) > 20, "names are told apart"
    for name, result in results.items():
        assert list(result) == KEYS and result["median"] >= 0
        assert f"| {name} |" in ran.stdout and met(result) in ("", "yes")
    asked = [name for name, result in results.items() if result["target"] is not None]
    assert len(asked) == 3, "a dry run is asked for equal losses and packed rows, not for rates"
    for name in ("torch 2.", "soaes abc", "- decoding: done"):
        assert name in ran.stdout


def breaks(setting):
    yield row("before", "s", [1.0])
    raise RuntimeError("CUDA error: an illegal memory access")


def works(setting):
    yield row("after", "s", [2.0])


def dies(setting):
    yield row("before", "s", [1.0])
    os._exit(9)


def hangs(setting):
    yield row("before", "s", [1.0])
    time.sleep(60)


def planted(monkeypatch, needed=1, **functions):
    parts = {name: (f"{__name__}.{name}", needed) for name in functions}
    monkeypatch.setattr(gpu, "PARTS", parts)
    module = SimpleNamespace(**functions)
    monkeypatch.setattr(gpu, "importlib", SimpleNamespace(import_module=lambda name: module))
    monkeypatch.setattr(gpu, "provenance", lambda: {"commit": "abc", "versions": VERSIONS})


VERSIONS = {"torch": "2", "transformers": "5"}


def test_a_part_that_fails_is_named_and_stops_no_other(monkeypatch, tmp_path, capsys):
    planted(monkeypatch, breaks=breaks, works=works)
    out = tmp_path / "gpu.json"
    assert not gpu.main(["dry=1", f"out={out}"])
    printed = capsys.readouterr().out
    assert "- breaks: failed: RuntimeError: CUDA error: an illegal memory access" in printed
    assert "- works: done" in printed
    written = json.loads(out.read_text(encoding="utf-8"))
    assert [result["name"] for result in written["results"]] == ["before", "after"]
    assert gpu.main(["dry=1", "parts=works"])
    assert "breaks" not in capsys.readouterr().out


def test_a_part_that_dies_or_hangs_keeps_its_rows(monkeypatch):
    """Parts run in processes of their own on a card; here they are forked, which is quicker."""
    planted(monkeypatch, needed=0.2, dies=dies, hangs=hangs)
    context = multiprocessing.get_context("fork")
    monkeypatch.setattr(gpu.multiprocessing, "get_context", lambda method: context)
    card = Setting(dry=False, card="NVIDIA H100 80GB HBM3", memory=8e10)
    died, hung = gpu.run_part("dies", card, 60), gpu.run_part("hangs", card, 1)
    assert died.status == "failed: its process ended with status 9"
    assert hung.status == "stopped after 1 s: no time was left" and hung.seconds < 10
    assert [result["name"] for result in died.results + hung.results] == ["before"] * 2


def test_no_part_is_started_that_would_not_end(monkeypatch):
    planted(monkeypatch, works=works)
    card = Setting(dry=False)
    monkeypatch.setattr(gpu, "PARTS", {"works": ("works", 80)})
    outcome = gpu.run_part("works", card, 79)
    assert outcome.status == "not started: it takes up to 80 s, and 79 s are left"
    assert gpu.run_part("works", DRY, gpu.DRY_SECONDS - 1).status.startswith("not started")
    assert sum(needed for _, needed in PARTS.values()) <= int(gpu.DEFAULTS["seconds"])


PARTS = dict(gpu.PARTS)


@pytest.mark.parametrize("name", ["documents", "sdpa"])
def test_a_leak_between_packed_documents_is_seen(name):
    lengths = [9, 5, 10]
    model = DRY.model("0.5B", torch.float32).eval()
    attention.set_attention(model, name)
    batch = DRY.packed_batch(lengths, rows=2)
    positions_BT = batch["positions_BT"]
    leaking_BT = torch.arange(24).expand_as(positions_BT)
    error = gpu_train.packed_error(model, batch["ids_BT"], positions_BT, lengths)
    leak = gpu_train.packed_error(model, batch["ids_BT"], leaking_BT, lengths)
    assert error < self_check.LIMIT_FLOAT32 < self_check.LIMIT_HALF < leak


def test_a_draft_errs_as_often_as_it_is_made_to():
    target = Engine(gpu_decode.counting_model(DRY, "7B"))
    draft = Engine(gpu_decode.counting_model(DRY, "0.5B", wrong=0.24))
    prompt = list(range(8))
    plain = Autoregressive(target, 0.0, 1.0, -1).generate(prompt, 20, torch.Generator())
    gpu_decode.check_counts(plain, prompt, "plain")
    with pytest.raises(RuntimeError, match=r"method: wrote \[8, 10\], not \[8, 9\]"):
        gpu_decode.check_counts(Generation(tokens=[8, 10]), prompt, "method")
    vocabulary = draft.vocab
    draft.begin(1)
    steps = []
    for token in range(vocabulary):
        draft.rollback(0)
        best = int(draft.forward(torch.tensor([token])).argmax())
        steps.append((best - token) % vocabulary)
    assert steps.count(1) + steps.count(2) > 0.99 * vocabulary  # a width of 64 mistakes one
    assert 0.2 < steps.count(2) / vocabulary < 0.28


def test_the_largest_target_that_fits_is_taken():
    taken = {}
    for gigabytes in (80, 24, 12):
        card = Setting(dry=False, card="a card", memory=gigabytes * 1e9)
        taken[gigabytes] = gpu_decode.largest_target(card)
    assert taken == {80: "7B", 24: "3B", 12: "1.5B"}
    with pytest.raises(ValueError, match="a card has 4 GB"):
        gpu_decode.largest_target(Setting(dry=False, card="a card", memory=4e9))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        pytest.param("parts=step", "there is no part 'step'; give machine, losses", id="part"),
        pytest.param("dry=0", "nvidia-smi names no GPU here; .* dry=1", id="no card"),
        pytest.param("dry=2", "dry=2: 1 for tiny shapes", id="neither dry nor not"),
        pytest.param("second=5", "second=5: give parts=", id="unknown word"),
    ],
)
def test_the_command_line_refuses(word, message, monkeypatch):
    monkeypatch.setattr(gpu, "card_here", lambda: None)
    with pytest.raises(ValueError, match=message):
        gpu.main([word])
