"""What is recorded of the code is a commit of this code, or its version."""

import subprocess

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
