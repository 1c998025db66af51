"""A library that crashes costs the file that it was given, and nothing else."""

import faulthandler
import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

from soaes.data.curation.document import Rejection, SourceDocument
from soaes.data.readers.reader_process import ReaderProcess
from soaes.data.readers.registry import Readers


def read_or_crash(path, name):
    """A reader that does what its file says."""
    text = path.read_text("utf-8")
    yield SourceDocument(text, f"{name}:1")
    if text.startswith("signal "):
        faulthandler.disable()  # pytest's, which would write where the crash was
        Path(tempfile.mkdtemp(), "left.txt").write_text("behind")
        os.kill(os.getpid(), int(text.split()[1]))
    if text == "exit":
        os._exit(3)
    if text == "hang":
        time.sleep(3600)
    if text == "install":
        raise ImportError("no module named z")
    yield SourceDocument(text, f"{name}:2")


@pytest.fixture
def readers():
    readers = Readers()
    readers._paths[".x"] = "x"
    readers._loaded["x"] = read_or_crash
    return readers


def test_a_file_that_kills_its_reader_is_named_and_the_next_are_read(tmp_path, readers):
    texts = ["first", f"signal {int(signal.SIGSEGV)}", "exit", f"signal {int(signal.SIGKILL)}"]
    outcomes = []
    with ReaderProcess(readers, 60) as process:
        for text in [*texts, "last"]:
            file = tmp_path / "a.x"
            file.write_text(text, encoding="utf-8")
            outcomes.append(list(process.read(file, "corpus/a.x")))
        scratch = Path(process._scratch.name)
        assert len(list(scratch.rglob("left.txt"))) == 2
    assert not scratch.exists()
    whole = [outcomes[0], outcomes[-1]]
    assert [[item.source for item in items] for items in whole] == 2 * [
        ["corpus/a.x:1", "corpus/a.x:2"]
    ]
    ends = []
    for document, rejection in outcomes[1:-1]:
        assert isinstance(document, SourceDocument) and isinstance(rejection, Rejection)
        assert (rejection.source, rejection.reason) == ("corpus/a.x", "crashed")
        ends.append(rejection.detail.partition(";")[0])
    assert ends == [f"its reader ended by {end}" for end in ("SIGSEGV", "exit code 3", "SIGKILL")]


def test_what_a_reader_lacks_ends_the_reading(tmp_path, readers):
    (tmp_path / "a.x").write_text("install", encoding="utf-8")
    with ReaderProcess(readers, 60) as process, pytest.raises(ValueError, match="z; install what"):
        list(process.read(tmp_path / "a.x", "a.x"))


def test_reading_may_stop_in_the_middle_of_a_file(tmp_path, readers):
    (tmp_path / "a.x").write_text("whole" * 100_000, encoding="utf-8")
    with ReaderProcess(readers, 60) as process:
        next(process.read(tmp_path / "a.x", "a.x"))
        child = process._process
    assert child.exitcode is not None


def test_a_file_that_holds_its_reader_is_given_up_and_the_next_is_read(tmp_path, readers):
    outcomes = []
    with ReaderProcess(readers, timeout=0.5) as process:
        for text in ("hang", "next"):
            file = tmp_path / "a.x"
            file.write_text(text, encoding="utf-8")
            outcomes.append(list(process.read(file, "corpus/a.x")))
    kept, rejection = outcomes[0]
    assert kept.source == "corpus/a.x:1" and rejection.reason == "no end in time"
    assert "data.read.timeout=0.5 seconds" in rejection.detail
    assert len(outcomes[1]) == 2
