"""Calls of a model, known by what was asked, and the log that keeps every answer.

A call is known by the digest of model, messages and parameters. The log is one file of JSON lines,
shared by all recipes of a store: whoever asks the same again reads the answer. A line is written at
once and flushed to the disk before its answer is used, so that a killed process loses the calls
under way and no others. A request that the server refused is asked again by the next process: the
cause may lie with the server, whose settings nobody knows. Knows no network.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from soaes.pipeline.store import sync_folder

LOG = "calls.jsonl"
DIGEST_CHARS = 64  # hexadecimal digits
REFUSED = "refused: "  # how a finish reason begins that is none of the model's
START = b'{"digest": "'  # how a line begins, before its digest


@dataclass(frozen=True)
class Request:
    """What a model is asked.

    Attributes:
        model: Its name.
        messages: The conversation, `{"role", "content"}` each.
        parameters: Of decoding, as the request holds them.
    """

    model: str
    messages: tuple[Mapping[str, str], ...]
    parameters: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of all of it, in hexadecimal."""
        content = json.dumps(
            [self.model, [dict(message) for message in self.messages], dict(self.parameters)],
            ensure_ascii=False,
            sort_keys=True,
        )
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Reply:
    """What a model answered.

    Attributes:
        content: The text.
        finish_reason: `stop`, `length`, `content_filter` ...; `refused: 400` where the server
            refused the request.
        prompt_tokens: As the server counted them; 0 where it did not.
        completion_tokens: Likewise.
    """

    content: str
    finish_reason: str
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def is_refused(self) -> bool:
        """Whether the server refused the request."""
        return self.finish_reason.startswith(REFUSED)

    @property
    def tokens(self) -> int:
        """All tokens that the call took."""
        return self.prompt_tokens + self.completion_tokens


class Author(Protocol):
    """Whoever answers requests: a model behind a server, a local one, or rules."""

    def answer(self, request: Request) -> Reply:
        """Answer a request; called from several threads."""


class CallLog:
    """The log of a folder. Several threads and processes may write to it.

    Args:
        folder: Where it lies; made with the first record.
        wanted: Digests of the calls that may be asked for; others are not kept in memory.
    """

    def __init__(self, folder: Path, wanted: Collection[str]) -> None:
        self.path = folder / LOG
        self.num_damaged = 0  # lines that a killed process or a full disk left
        self._wanted = frozenset(wanted)
        self._replies: dict[str, Reply] = {}
        self._lock = threading.Lock()
        self._read()

    def get(self, request: Request) -> Reply | None:
        """Return the answer to a request; None where nobody asked it yet."""
        return self._replies.get(request.digest)

    def add(self, request: Request, reply: Reply) -> None:
        """Write an answer to the disk.

        Raises:
            OSError: It cannot be written.
        """
        digest = request.digest
        record = {
            "digest": digest,
            "model": request.model,
            "messages": [dict(message) for message in request.messages],
            "parameters": dict(request.parameters),
            "reply": asdict(reply),
        }
        line = json.dumps(record).encode() + b"\n"  # ASCII: half a character can be written, too
        with self._lock:
            is_new = not self.path.exists()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a+b") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX)
                if not _ends_with_line(handle):
                    line = b"\n" + line
                handle.write(line)
                handle.flush()
                os.fsync(handle.fileno())
            if is_new:
                sync_folder(self.path.parent)
            self._replies[digest] = reply

    def _read(self) -> None:
        if not self.path.exists():
            return
        with open(self.path, "rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH)  # no line is half written
            for line in handle:
                digest = line[len(START) : len(START) + DIGEST_CHARS].decode("ascii", "replace")
                is_whole = line.startswith(START) and line.endswith(b"}\n")
                if not is_whole:
                    self.num_damaged += bool(line.strip())
                    continue
                if digest in self._wanted and digest not in self._replies:
                    try:
                        reply = Reply(**json.loads(line)["reply"])
                    except (ValueError, KeyError, TypeError):
                        self.num_damaged += 1
                        continue
                    if not reply.is_refused:
                        self._replies[digest] = reply


def _ends_with_line(handle: Any) -> bool:
    """Tell whether a file is empty or ends with a whole line; a killed process may leave half."""
    size = handle.seek(0, os.SEEK_END)
    if not size:
        return True
    handle.seek(size - 1)
    return bool(handle.read(1) == b"\n")
