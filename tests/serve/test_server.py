"""A server is waited for, asked and ended as a whole, and what ends it by itself is said."""

import asyncio
import json
import os
import socket
import time

import pytest

from soaes.serve.middleware.greedy_only import _temperature
from soaes.serve.server import check_port, running


def start(tmp_path, text):
    script = tmp_path / "serve.sh"
    script.write_text(text)
    return running(script, tmp_path / "serve.log", "http://127.0.0.1:9")


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until_written(path):
    deadline = time.monotonic() + 300
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_until_ended(pid):
    deadline = time.monotonic() + 60  # the kernel is about to
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(pid)


def test_one_that_never_is_healthy_is_given_up_and_ended_with_its_children(tmp_path):
    child = tmp_path / "child"
    with pytest.raises(ValueError, match="not healthy within 0.5 seconds.*--start-timeout"):
        with start(tmp_path, f"sleep 60 &\necho $! > {child}\nexec sleep 60") as server:
            wait_until_written(child)
            server.wait_until_ready(0.5)
    assert server.process.returncode is not None
    wait_until_ended(int(child.read_text()))


def test_a_second_ctrl_c_still_ends_its_children(tmp_path, monkeypatch):
    child = tmp_path / "child"
    with pytest.raises(KeyboardInterrupt):
        with start(tmp_path, f"sleep 60 &\necho $! > {child}\nexec sleep 60") as server:
            wait_until_written(child)
            wait = server.process.wait

            def interrupted(limit=None):
                if limit is not None:
                    raise KeyboardInterrupt
                return wait()

            monkeypatch.setattr(server.process, "wait", interrupted)
    assert server.process.returncode is not None
    wait_until_ended(int(child.read_text()))


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (
            "INFO ok\n(Worker pid=1) OSError: disk\nRuntimeError: failed. See root cause above.",
            "ended with exit code 3 while it started: OSError: disk; its log is .*serve.log",
        ),
        ("RuntimeError: failed. See root cause above.\nlast", "while it started: last; its log"),
        ("", "while it started: it printed nothing"),
    ],
    ids=["cause", "only-secondhand", "silent"],
)
def test_one_that_dies_is_said_with_its_cause(tmp_path, log, message):
    script = "".join(f"echo '{line}'\n" for line in log.splitlines())
    with pytest.raises(ValueError, match=message), start(tmp_path, f"{script}exit 3") as server:
        server.wait_until_ready(30)


def test_one_that_dies_while_it_serves_is_said_too(tmp_path):
    with pytest.raises(ValueError, match="was killed by signal 9 while it served"):
        with start(tmp_path, "kill -9 $$") as server:
            server.wait()


def test_a_port_that_is_taken_is_refused():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(ValueError, match=f"--port {port}: cannot be listened on .*another"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)
    with pytest.raises(ValueError, match="--host no.such.host.invalid"):
        check_port("no.such.host.invalid", port)


@pytest.mark.parametrize(
    ("body", "samples"),
    [
        ({"temperature": 0.7}, True),
        ({"temperature": 0}, False),
        ({"messages": []}, False),  # the server's default, which is greedy
        ({"sampling_params": {"temperature": 0}}, False),
        ({"sampling_params": {}}, True),  # vLLM's own default, 1
    ],
    ids=["sampled", "greedy", "default", "greedy-params", "default-params"],
)
def test_a_request_that_samples_is_known(body, samples):
    assert bool(_temperature(json.dumps(body).encode())) == samples


def test_what_is_no_request_is_left_to_the_server():
    assert not _temperature(b"no json") and not _temperature(b"[1]")


def test_a_request_that_samples_is_refused_and_others_are_handed_on():
    pytest.importorskip("starlette")
    from starlette.requests import Request

    from soaes.serve.middleware.greedy_only import greedy_only

    def answer(body):
        async def receive():
            return {"type": "http.request", "body": json.dumps(body).encode()}

        async def call_next(request):
            return "handed on"

        request = Request({"type": "http", "method": "POST", "headers": []}, receive)
        return asyncio.run(greedy_only(request, call_next))

    assert answer({"temperature": 0}) == "handed on"
    refused = answer({"temperature": 0.7})
    assert refused.status_code == 400 and b"greedy decoding alone" in refused.body
