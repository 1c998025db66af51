"""The wheel holds the package with its YAML files and plans a sweep from any folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this tree, built from a copy and without a network."""
    pytest.importorskip("setuptools", minversion="77", reason="the build backend, see [dev]")
    source, wheels = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    for name in ("soaes", "conf", "experiments"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(wheels)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", ".", *options], cwd=source, check=True)
    (path,) = wheels.glob("soaes-*.whl")
    return path


def test_every_package_is_listed():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = config["options"]["packages"].split()
    modules = sorted((ROOT / "soaes").rglob("__init__.py"))
    packages = {".".join(path.parent.relative_to(ROOT).parts) for path in modules}
    assert set(listed) == packages | {"soaes.conf", "soaes.experiments"}
    assert listed == sorted(listed)


def test_the_wheel_holds_the_code_the_configuration_and_the_tables(wheel):
    expected = {f"soaes/{path.relative_to(ROOT / 'soaes')}" for path in _files("soaes", "*.py")}
    expected |= {f"soaes/{path.relative_to(ROOT)}" for path in _files("conf", "*.yaml")}
    for pattern in ("*.jsonl", "*.md"):
        expected |= {f"soaes/{path.relative_to(ROOT)}" for path in _files("conf", pattern)}
    for folder in ("soaes/report/page/assets", "soaes/review/assets"):
        assets = (ROOT / folder).rglob("*")
        files = (path.relative_to(ROOT / "soaes") for path in assets if path.is_file())
        expected |= {f"soaes/{path}" for path in files}
    shapes = _files("soaes/bill", "*.json")
    expected |= {f"soaes/{path.relative_to(ROOT / 'soaes')}" for path in shapes}
    tables = (ROOT / "experiments").glob("*.yaml")
    expected |= {f"soaes/{path.relative_to(ROOT)}" for path in tables}
    names = set(zipfile.ZipFile(wheel).namelist())
    assert expected | {"soaes/py.typed"} == {name for name in names if ".dist-info/" not in name}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_plans_and_reports_from_any_folder(wheel, tmp_path):
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    zipfile.ZipFile(wheel).extractall(installed)
    elsewhere.mkdir()
    store = {"PYTHONPATH": str(installed), "SOAES_STORE": str(tmp_path / "store")}

    def output(*words):
        finished = subprocess.run(
            [sys.executable, *words],
            cwd=elsewhere,
            env={**os.environ, **store},
            capture_output=True,
            text=True,
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    own = elsewhere / "mine" / "runtime"
    own.mkdir(parents=True)
    (own / "quiet.yaml").write_text("defaults: [cpu]\n")
    words = ["--config-dir", "mine", "runtime=quiet", "goal=evaluate", "scale=smoke"]
    plan = output("-m", "soaes.run", *words, "dry=true", "logger=none")
    assert "11 stages to run" in plan
    names = "from soaes.report import table_spec as t; print(t.__file__, *t.table_names())"
    path, *tables = output("-c", names).split()
    assert path.startswith(str(installed)) and "table2" in tables


def _files(folder, pattern):
    return sorted((ROOT / folder).rglob(pattern))
