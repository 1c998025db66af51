"""Read files in a process of their own, so that a library that crashes or hangs costs one file.

Readers call libraries in C, C++ and Rust, which a malformed file may kill, by a segmentation
fault, an abort, or memory that the system does not give, or hold for ever. The process is a fork.
It is asked for one file after another and sends back what they hold; after one that killed it, or
for which it is killed, another fork goes on with the next. What such a file gave before is kept, as
with an error.
"""

from __future__ import annotations

import multiprocessing
import signal
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType

from soaes.data.curation.document import Rejection, SourceDocument
from soaes.data.readers.registry import Readers

Item = SourceDocument | Rejection
CRASHED = "crashed"
HUNG = "no end in time"
END = "end of file"
JOIN_SECONDS = 10  # that a process which was told to end is waited for


class ReaderProcess:
    """Reads files as `Readers` does; a crash is a rejection. A context manager.

    Args:
        readers: The readers by suffix.
        timeout: Seconds that a document may take; then its file is given up.
    """

    def __init__(self, readers: Readers, timeout: float) -> None:
        self._readers = readers
        self._timeout = timeout
        self._process: BaseProcess | None = None
        self._requests: Connection
        self._results: Connection
        self._scratch: tempfile.TemporaryDirectory[str]

    def __enter__(self) -> ReaderProcess:
        # What a crash leaves behind, such as a file that was being expanded, goes with it.
        self._scratch = tempfile.TemporaryDirectory()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._requests.close()  # upon which it ends
            self._results.close()
            self._process.join(JOIN_SECONDS)
            self._process.kill()
        self._scratch.cleanup()

    def read(self, path: Path, name: str) -> Iterator[Item]:
        """Yield what a file holds; whatever fails is a rejection.

        Args:
            path: The file.
            name: Its name relative to the data root, with which sources begin.

        Raises:
            ValueError: A reader, or what it needs, is not installed.
        """
        if self._process is None:
            self._start()
        self._requests.send((path, name))
        while True:
            if not self._results.poll(self._timeout):
                yield Rejection(name, HUNG, self._end_of_hang())
                return
            try:
                item = self._results.recv()
            except EOFError:
                yield Rejection(name, CRASHED, self._end_of_crash())
                return
            if item == END:
                return
            if isinstance(item, Exception):
                raise item
            yield item

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        asked, self._requests = context.Pipe(duplex=False)
        self._results, answers = context.Pipe(duplex=False)
        own_ends = (self._requests, self._results)
        arguments = (self._readers, asked, answers, own_ends, self._scratch.name)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        asked.close()
        answers.close()

    def _end_of_crash(self) -> str:
        """Forget the process that crashed, and say how it ended."""
        code = self._forget()
        end = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"its reader ended by {end}; save the file anew, or convert it"

    def _end_of_hang(self) -> str:
        """Kill the process that hangs, and say for how long it was waited for."""
        assert self._process is not None
        self._process.kill()
        self._forget()
        limit = f"a document took more than data.read.timeout={self._timeout:g} seconds"
        return f"{limit}; save the file anew, convert or split it, or raise the limit"

    def _forget(self) -> int:
        """Wait until the process has ended, and return its exit code."""
        assert self._process is not None
        self._process.join()
        code = self._process.exitcode or 0
        self._process = None
        self._requests.close()
        self._results.close()
        return code


def _serve(
    readers: Readers,
    requests: Connection,
    results: Connection,
    ends_of_parent: tuple[Connection, ...],
    scratch: str,
) -> None:
    """Read the files that are asked for, until nobody asks any more."""
    for end in ends_of_parent:
        end.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's, which then closes the pipes
    tempfile.tempdir = scratch
    while True:
        try:
            path, name = requests.recv()
        except EOFError:
            return
        try:
            for item in readers.read(path, name):
                results.send(item)
            results.send(END)
        except BrokenPipeError:  # the parent is gone
            return
        except ValueError as error:
            results.send(ValueError(str(error)))
