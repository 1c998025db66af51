"""What is recorded of the code is a commit of this code, or its version."""

import subprocess

from soaes.pipeline import provenance


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
