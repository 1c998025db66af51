"""A vLLM server as a process of ours: started by its script, asked over HTTP, ended as a whole.

Knows the OpenAI API and vLLM's /health and /metrics, and nothing of models.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soaes.pipeline.processes import die_with_parent

POLL = 0.2  # seconds between two looks at a server that starts
PATIENCE = 60  # seconds that a server has to end by itself
ANSWER_LIMIT = 600  # seconds for an answer
LAST_LINES = 12  # of the log, that are shown of a server that ended

# `ValueError: ...` of a traceback, behind the name of the process that vLLM prints.
CAUSE = re.compile(r"(?:^|\s)(\w*(?:Error|Exception): .+)$")
SECONDHAND = "See root cause"  # in vLLM's own error of a process that another one waited for

# A local server is asked directly, whatever the environment says of proxies.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Answer:
    """What a server answered to one question."""

    text: str
    is_cut: bool  # whether it was ended by its limit, not by the model
    prompt_tokens: int
    tokens: int
    seconds: float
    drafted: int  # tokens that the draft proposed meanwhile
    accepted: int  # of them, by the target


def check_port(host: str, port: int) -> None:
    """Check that nobody listens on a port.

    Raises:
        ValueError: It is taken, or the host is no address of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port)[0][0]
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
    except OSError as error:
        raise ValueError(
            f"--host {host} --port {port}: cannot be listened on ({error.strerror}); give another "
            "--port, or end what listens there"
        ) from None


@contextmanager
def running(script: Path, log: Path, url: str) -> Iterator[Server]:
    """Run a server until the block ends; then it and all its processes are ended.

    Args:
        script: The shell script that becomes the server.
        log: The file for what it prints.
        url: Where it is asked.
    """
    with open(log, "wb") as output:
        # a session of its own: Ctrl-C in the terminal reaches this process alone
        process = subprocess.Popen(
            ["sh", str(script)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    server = Server(process, log, url)
    try:
        yield server
    finally:
        server.end()


class Server:
    """A running server.

    Args:
        process: Its first process, which leads a group of its own.
        log: What it prints.
        url: Where it is asked.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path, url: str) -> None:
        self.process = process
        self.log = log
        self.url = url

    def wait_until_ready(self, limit: float) -> float:
        """Wait until the server is healthy; return the seconds that it took.

        Args:
            limit: Seconds after which it is given up.

        Raises:
            ValueError: It ended, or was not healthy in time.
        """
        started = time.monotonic()
        while time.monotonic() - started < limit:
            self._check_alive("while it started")
            with suppress(OSError), OPENER.open(f"{self.url}/health", timeout=limit) as response:
                if response.status == 200:
                    return time.monotonic() - started
            time.sleep(POLL)
        raise ValueError(
            f"vLLM was not healthy within {limit:g} seconds; give it longer with --start-timeout, "
            f"or see its log, {self.log}"
        )

    def ask(self, model: str, question: str, max_tokens: int) -> Answer:
        """Ask one question, answered by the most probable tokens.

        Args:
            model: The model, as the server calls it.
            question: A user's message.
            max_tokens: Tokens of the answer at most.

        Raises:
            ValueError: The server ended, or refused.
        """
        before = self._counters()
        started = time.monotonic()
        request = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": max_tokens,
        }
        response = json.loads(self._request("/v1/chat/completions", request))
        seconds = time.monotonic() - started
        after = self._counters()
        choice, usage = response["choices"][0], response["usage"]
        return Answer(
            choice["message"]["content"],
            choice["finish_reason"] == "length",
            usage["prompt_tokens"],
            usage["completion_tokens"],
            seconds,
            after["draft"] - before["draft"],
            after["accepted"] - before["accepted"],
        )

    def wait(self) -> None:
        """Wait for as long as the server serves.

        Raises:
            ValueError: It ended by itself.
        """
        self.process.wait()
        self._check_alive("while it served")

    def end(self) -> None:
        """End the server and whatever it started: with a signal, and by force where that fails."""
        self.process.terminate()
        try:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE)
        finally:  # also after a second Ctrl-C
            with suppress(ProcessLookupError):  # of the group nothing is left
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _check_alive(self, when: str) -> None:
        status = self.process.poll()
        if status is None:
            return
        lines = self.log.read_text("utf-8", errors="replace").splitlines()
        end = f"ended with exit code {status}" if status >= 0 else f"was killed by signal {-status}"
        shown = "".join(f"\n  {line}" for line in lines[-LAST_LINES:])
        raise ValueError(f"vLLM {end} {when}: {_cause(lines)}; its log is {self.log}{shown}")

    def _counters(self) -> dict[str, int]:
        """Tokens that were drafted and accepted since the server started; 0 without speculation."""
        text = self._request("/metrics")
        counters = {}
        for name in ("draft", "accepted"):
            pattern = rf"^vllm:spec_decode_num_{name}_tokens_total\S* (\S+)$"
            counters[name] = round(sum(map(float, re.findall(pattern, text, re.MULTILINE))))
        return counters

    def _request(self, path: str, body: dict[str, Any] | None = None) -> str:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}{path}", data, {"Content-Type": "application/json"}
        )
        try:
            with OPENER.open(request, timeout=ANSWER_LIMIT) as response:
                text: str = response.read().decode("utf-8")
        except urllib.error.HTTPError as error:
            raise ValueError(
                f"vLLM refused {path} with status {error.code}: "
                f"{error.read().decode('utf-8', errors='replace')[:500]}; its log is {self.log}"
            ) from None
        except OSError as error:
            self._check_alive("while it answered")
            raise ValueError(f"vLLM did not answer {path} ({error}); see {self.log}") from None
        return text


def _cause(lines: list[str]) -> str:
    """Return the first error of a log that is no other's consequence, else the last line."""
    for line in lines:
        match = CAUSE.search(line)
        if match and SECONDHAND not in line:
            return match.group(1)
    return lines[-1] if lines else "it printed nothing"
