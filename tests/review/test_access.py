"""Whoever is not the page of a known browser on this machine gets 403, and nothing else."""

import http.client
import json

import pytest

from tests.helpers.reviews import LocalService, toy_items

LI = {"reviewer": "li"}
PATHS = [
    ("GET", "/"),
    ("GET", "/assets/review.js"),
    ("GET", "/api/progress"),
    ("POST", "/api/next"),
]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    service = LocalService(tmp_path_factory.mktemp("review") / "a.sqlite", toy_items())
    yield service
    service.stop()


@pytest.fixture(scope="module")
def cookie(service):
    status, headers, _ = request(service, "GET", service.addresses["li"].removeprefix(service.base))
    assert status == 303 and headers["location"] == "/"
    assert "HttpOnly" in headers["set-cookie"] and "SameSite=lax" in headers["set-cookie"]
    return headers["set-cookie"].partition(";")[0]


def request(service, method, path, body=None, **headers):
    """Send a request with exactly these headers."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in {"Host": f"127.0.0.1:{service.port}", **headers}.items():
        connection.putheader(name, value)
    content = (
        b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    )
    connection.putheader("Content-Length", str(len(content)))
    connection.endheaders(content)
    answer = connection.getresponse()
    text = answer.read().decode()
    lines = {name.lower(): value for name, value in answer.getheaders()}
    connection.close()
    return answer.status, lines, text


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_without_the_cookie_nothing_is_answered(service, method, path):
    for other in ({}, {"Cookie": f"soaes_review_{service.port}=guess"}):
        status, headers, text = request(service, method, path, {}, Origin=service.base, **other)
        assert status == 403 and "soaes.review" in text and "set-cookie" not in headers


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.0.0.1:{port}.evil.com",
    ],
)
@pytest.mark.parametrize(("method", "path"), PATHS)
def test_another_host_is_refused(service, cookie, method, path, host):
    host = host.format(port=service.port)
    named = {"Host": host, "Origin": f"http://{host}", "Cookie": cookie}
    assert request(service, method, path, {}, **named)[0] == 403


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://localhost:{port}", None],
)
def test_another_origin_is_refused(service, cookie, origin):
    named = {} if origin is None else {"Origin": origin.format(port=service.port)}
    assert request(service, "POST", "/api/next", {}, Cookie=cookie, **named)[0] == 403
    if origin is not None:
        assert request(service, "GET", "/api/progress", Cookie=cookie, **named)[0] == 403


def test_the_page_itself_is_answered(service, cookie):
    assert request(service, "GET", "/", Cookie=cookie)[0] == 200
    body = request(service, "POST", "/api/next", LI, Origin=service.base, Cookie=cookie)[2]
    assert json.loads(body)["work"]["item"]["split_hint"] == "test"
    local = f"localhost:{service.port}"
    named = {"Host": local, "Origin": f"http://{local}", "Cookie": cookie}
    assert request(service, "POST", "/api/next", LI, **named)[0] == 200


def test_an_address_opens_one_browser_and_the_next_is_announced(service, cookie):
    path = service.addresses["li"].removeprefix(service.base)
    status, headers, _ = request(service, "GET", path)
    assert status == 303 and "set-cookie" in headers
    again = request(service, "GET", path)
    assert again[0] == 303 and "set-cookie" not in again[1], "which leads to 403"
    assert service.addresses["li"].removeprefix(service.base) != path


@pytest.mark.parametrize(("method", "path"), [*PATHS, ("GET", "/nothing")])
def test_every_answer_forbids_what_is_not_the_pages_own(service, cookie, method, path):
    for named in ({"Cookie": cookie}, {}):
        headers = request(service, method, path, {}, Origin=service.base, **named)[1]
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy and "script-src 'self';" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        pytest.param("/api/decide", b"not JSON", 422, id="not JSON"),
        pytest.param("/api/decide", b"[]", 422, id="a list"),
        pytest.param("/api/decide", {**LI, "item": 1}, 422, id="wrong type"),
        pytest.param("/api/open", {**LI, "item": "0" * 16, "again": False}, 404, id="unknown item"),
        pytest.param("/api/next", b" " * 4_100_000, 413, id="too long"),
        pytest.param("/api/next", b"[" * 200_000, 422, id="deep"),
        pytest.param("/api/open", {**LI, "item": "\ud800", "again": False}, 422, id="open half"),
        pytest.param("/api/renew", {**LI, "item": "\ud800"}, 422, id="renew half a character"),
    ],
)
def test_a_request_that_means_nothing_is_refused_with_a_reason(service, cookie, path, body, status):
    answer = request(service, "POST", path, body, Origin=service.base, Cookie=cookie)
    assert answer[0] == status and json.loads(answer[2])["error"]


def test_what_is_searched_for_may_be_long(service, cookie):
    for words in ("a" * 60_000, "%25" * 20_000):
        path = f"/api/queue?words={words}"
        assert request(service, "GET", path, Cookie=cookie)[0] == 200


def test_a_full_disk_is_an_answer(service, cookie):
    named = {"Origin": service.base, "Cookie": cookie}
    _, _, text = request(service, "POST", "/api/next", LI, **named)
    item = json.loads(text)["work"]["item"]
    body = {**LI, "item": item["id"], "again": False, "version": 0, "key": "a", "reason": ""}
    body |= {"verdict": "edit", "question": "问" * 100_000, "answer": "答", "seconds": 1}
    (row,) = service.database.rows("PRAGMA page_count")
    service.database.rows(f"PRAGMA max_page_count = {row[0]}")
    status, _, text = request(service, "POST", "/api/decide", body, **named)
    assert status == 503 and "full" in json.loads(text)["error"]
    service.database.rows("PRAGMA max_page_count = 1000000")
    assert request(service, "POST", "/api/decide", body, **named)[0] == 200


def test_a_page_of_another_person_decides_nothing(service, cookie):
    named = {"Origin": service.base, "Cookie": cookie}
    status, _, text = request(service, "POST", "/api/next", {"reviewer": "wang"}, **named)
    assert status == 403 and "belongs to li" in json.loads(text)["error"]


def test_an_item_cannot_be_opened_before_its_turn(service, cookie):
    identifier = toy_items()[5]["id"]
    body = {**LI, "item": identifier, "again": False}
    assert request(service, "POST", "/api/open", body, Origin=service.base, Cookie=cookie)[0] == 404


def test_the_script_makes_no_markup_from_text():
    from soaes.review.app import FILES

    for name in ("review.js", "dom.js", "differences.js"):
        text = FILES[name].read_text("utf-8")
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert word not in text, (name, word)
