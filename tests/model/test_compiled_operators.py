"""Whoever compiles is waited for, and one that was killed is not waited for for ever."""

import os
import threading
import time

from torch.utils.file_baton import FileBaton

from soaes.model import compiled_operators


def locked(folder, seconds_ago=0.0):
    """A folder in which torch compiles an operator, or did when it was killed."""
    operator = folder / "py311_cpu" / "cpu_adam"
    operator.mkdir(parents=True)
    baton = FileBaton(str(operator / "lock"))
    assert baton.try_acquire()
    began = time.time() - seconds_ago
    os.utime(baton.lock_file_path, (began, began))
    return baton


def test_one_that_compiles_is_waited_for_and_said(tmp_path, capsys, monkeypatch):
    baton = locked(tmp_path, seconds_ago=60)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    waiting = threading.Thread(target=compiled_operators.wait_for_builds)
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    baton.release()
    waiting.join(60)
    assert not waiting.is_alive()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"waiting for {baton.lock_file_path}, while another process compiles")
    assert line.endswith("it counts as killed in 29 minutes, delete it if it was")


def test_one_that_was_killed_is_passed_over(tmp_path, capsys):
    baton = locked(tmp_path, seconds_ago=3600)
    compiled_operators.wait_for_builds(tmp_path)
    assert FileBaton(baton.lock_file_path).try_acquire(), "another can compile"
    assert "is 60 minutes old: its build was killed; removed" in capsys.readouterr().out


def test_nothing_is_waited_for_where_nobody_compiles(tmp_path, capsys):
    compiled_operators.wait_for_builds(tmp_path / "none")
    assert not capsys.readouterr().out
