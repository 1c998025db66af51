"""Laws of the client: it tries again where that may help, and never shows the key."""

import pytest

from soaes.data.synthesis.calls import Reply, Request
from soaes.data.synthesis.client import EndpointClient, EndpointError
from soaes.pipeline.runtime import Endpoint
from tests.helpers.openai_server import answer_body, openai_server

KEY = "sk-secret-0123456789"
REQUEST = Request("m", ({"role": "user", "content": "问"},), {"temperature": 0.5})


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("TEST_KEY", KEY)
    with openai_server() as running:
        yield running


def client_of(server, waits=None, **settings):
    endpoint = Endpoint(base_url=server.url, key_variable="TEST_KEY", **settings)
    return EndpointClient(endpoint, sleep=(waits if waits is not None else []).append)


def answers(*outcomes):
    """The faults that give these outcomes one after another."""
    return lambda number, body: outcomes[min(number, len(outcomes)) - 1]


def test_request_and_answer_follow_the_protocol(server):
    server.faults = answers((200, {}, answer_body("答")))
    assert client_of(server).answer(REQUEST) == Reply("答", "stop", 100, 20)
    message = {"role": "user", "content": "问"}
    assert server.bodies == [{"model": "m", "messages": [message], "temperature": 0.5}]
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_a_busy_server_is_asked_again_later_and_later_at_random_times(server):
    busy = (429, {"Retry-After": "7"}, b"")
    html = (200, {}, b"<html>")
    broken = (500, {}, b"")
    server.faults = answers(busy, broken, html, broken, (200, {}, answer_body("")))
    waits = []
    client = client_of(server, waits, backoff=1.0)
    assert client.answer(REQUEST) == Reply("", "stop", 100, 20)
    assert waits[0] == 7 and len(waits) == 4
    shares = [waits[1] / 2, waits[2] / 4, waits[3] / 8]
    assert all(0.5 <= share <= 1 for share in shares) and len(set(shares)) == 3


def test_it_gives_up_after_so_many_attempts_and_names_the_last_problem(server):
    server.faults = answers((503, {}, b"overloaded"))
    with pytest.raises(EndpointError, match="no answer in 3 attempts.*HTTP 503: overloaded"):
        client_of(server, attempts=3).answer(REQUEST)
    assert len(server.bodies) == 3
    gone = Endpoint(base_url="http://127.0.0.1:9/v1", attempts=1)
    with pytest.raises(EndpointError, match="ConnectError"):
        EndpointClient(gone).answer(REQUEST)


@pytest.mark.parametrize("status", [401, 403, 404, 302])
def test_what_no_second_try_helps_stops_at_once_without_the_key(server, status):
    server.faults = answers((status, {}, f"Incorrect API key provided: {KEY}".encode()))
    with pytest.raises(EndpointError, match=r"\[key\]") as error:
        client_of(server).answer(REQUEST)
    assert KEY not in repr(error.value) and "TEST_KEY" in str(error.value)
    assert len(server.bodies) == 1


def test_a_request_that_is_refused_for_what_it_holds_is_an_answer(server):
    server.faults = answers((400, {}, f"content policy {KEY}".encode()))
    refusal = Reply("content policy [key]", "refused: 400")
    assert client_of(server).answer(REQUEST) == refusal


@pytest.mark.parametrize("key", ["sk-\nsecret", "密钥"])
def test_a_key_that_no_header_holds_is_refused_without_being_shown(monkeypatch, key):
    monkeypatch.setenv("TEST_KEY", key)
    with pytest.raises(EndpointError, match="TEST_KEY: must be ASCII") as error:
        EndpointClient(Endpoint(key_variable="TEST_KEY"))
    assert key not in repr(error.value)


SLIPS = {
    "url": ({"base_url": "localhost"}, "must be the address of a server"),
    "password": ({"base_url": "http://me:sk-1@host/v1"}, "must hold no user, password or query"),
    "query": ({"base_url": "http://host/v1?key=sk-1"}, "must hold no user, password or query"),
    "key": ({"key_variable": "sk-1"}, "must be the NAME of an environment variable"),
    "budget": ({"max_tokens": 0}, "endpoint.max_tokens=0"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_settings_are_checked_and_no_key_among_them_is_shown(slip):
    settings, message = SLIPS[slip]
    with pytest.raises(ValueError, match=message) as error:
        Endpoint(**settings)
    assert "sk-1" not in str(error.value)


def test_half_a_key_at_the_end_of_a_message_is_not_shown(server):
    server.faults = answers((401, {}, (" " * 790 + KEY + " is wrong").encode()))
    with pytest.raises(EndpointError, match=r"\[key\] is wrong") as error:
        client_of(server).answer(REQUEST)
    assert KEY[:6] not in str(error.value)


def test_a_body_that_cannot_be_decompressed_is_asked_for_again(server):
    broken = (200, {"Content-Encoding": "gzip"}, b"no gzip")
    server.faults = answers(broken, (200, {}, answer_body("答")))
    assert client_of(server).answer(REQUEST).content == "答"
    assert len(server.bodies) == 2
