"""The main job at smoke: six tables, sanity checks, time, and a second run that builds none."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from soaes.pipeline import compose

EXPERIMENTS = ",".join(
    sorted(
        path.stem
        for kind in ("table", "speed")
        for path in (compose.CONF / "experiment").glob(f"{kind}*.yaml")
    )
)


@pytest.mark.nightly
def test_six_tables_and_their_sanity_checks(tmp_path):
    def soaes(module, *words):
        environment = {**os.environ, "SOAES_STORE": str(tmp_path / "store")}
        ran = subprocess.run(
            [sys.executable, "-m", f"soaes.{module}", *words],
            env=environment,
            capture_output=True,
            text=True,
            cwd=Path.cwd(),
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    began = time.monotonic()
    soaes("run", f"experiment={EXPERIMENTS}")
    assert time.monotonic() - began < 6 * 60
    tables = soaes("table")
    assert (
        tables.count("sanity check passed") == 5
        and "not built" not in tables
        and "failed" not in tables
        and "not measured" not in tables
    )
    began = time.monotonic()
    assert "to go]" not in soaes("run", f"experiment={EXPERIMENTS}"), "something was built again"
    assert soaes("table") == tables and time.monotonic() - began < 10
    reported = soaes("table", "--report")
    assert reported.startswith(tables) and "report.html" in reported.splitlines()[-1]
