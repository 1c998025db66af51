"""What is recorded of the code is a commit of this code, or its version."""

import os
import subprocess

import pytest

from soaes.pipeline import provenance
from soaes.pipeline.recipe import Recipe


def test_a_package_inside_another_repository_records_its_version(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    commit = ["commit", "-q", "--allow-empty", "-m", "theirs"]
    subprocess.run(["git", "-C", str(tmp_path), *author, *commit], check=True)
    installed = tmp_path / "provenance.py"
    installed.write_text("")
    monkeypatch.setattr(provenance, "__file__", str(installed))
    assert provenance.provenance()["commit"].startswith("soaes ")


def test_a_checkout_records_its_commit():
    commit = provenance.provenance()["commit"]
    assert len(commit.removesuffix("-dirty")) == 12 and not commit.startswith("soaes")


def test_the_code_of_a_decoder_is_in_the_digest_of_what_it_decodes(monkeypatch):
    """Settings name their decoder's class as a string: its module counts as imported."""
    decode = {"_target_": "soaes.decode.settings.PromptLookupSettings", "n": 3}
    files: set = set()
    provenance._add_sources(decode["_target_"].rpartition(".")[0], files)
    assert {"prompt_lookup.py", "speculative.py"} <= {path.name for path in files}
    recipe = Recipe("soaes.stages.speculate.speed", {"decode": decode})
    assert len(provenance.code_digest(recipe)) == 12


@pytest.mark.parametrize(
    ("script", "name"),
    [
        ("printf 'NVIDIA A\\nNVIDIA A\\n'", "NVIDIA A"),
        ("printf 'NVIDIA A\\nNVIDIA B\\n'", "NVIDIA A, NVIDIA B"),
        ("echo No devices were found; exit 6", provenance.NO_GPU),
        ("true", provenance.NO_GPU),
    ],
    ids=["two-of-a-kind", "two-kinds", "failing", "silent"],
)
def test_a_gpu_machine_is_the_kinds_of_its_cards_however_many(tmp_path, monkeypatch, script, name):
    (smi := tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    provenance.machine.cache_clear()
    try:
        assert provenance.machine("cuda") == name
    finally:
        provenance.machine.cache_clear()
