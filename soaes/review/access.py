"""Who may talk to the page: a browser of this machine that opened a one-time address.

Every request must name this machine as its host, so that no other name can be pointed here (DNS
rebinding); a request that changes something must come from the page itself; and each needs the
cookie that a one-time address is exchanged for. Everything else gets 403. Answers forbid the
browser to run or load anything that is not the page's own file.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from soaes.review.database import Database

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
HEADERS = {
    "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in POLICY.items()),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
LOCAL = ("127.0.0.1", "localhost")
SAFE_METHODS = ("GET", "HEAD")

REFUSED = {
    "host": "This page answers to 127.0.0.1 and localhost.\n本页只接受 127.0.0.1 和 localhost。",
    "origin": "This request comes from another page.\n该请求来自其他网页。",
    "token": (
        "Open the address that `python -m soaes.review` printed last; each opens one browser.\n"
        "请打开 `python -m soaes.review` 最后打印的地址；每个地址只能打开一个浏览器。"
    ),
}


class Addresses:
    """One-time tokens, one for each person at a time."""

    def __init__(self, base: str, announce: Callable[[str, str], None]) -> None:
        """Make tokens.

        Args:
            base: The address of the page, as http://127.0.0.1:8137.
            announce: Called with a person and an address that opens the page for them.
        """
        self.base = base
        self.announce = announce
        self._reviewers: dict[str, str] = {}

    def issue(self, reviewer: str) -> None:
        """Make an address for a person, and announce it."""
        token = secrets.token_urlsafe(24)
        self._reviewers[token] = reviewer
        self.announce(reviewer, f"{self.base}/?token={token}")

    def redeem(self, token: str) -> str | None:
        """Return whose token it is, and announce the person's next; None if it is nobody's."""
        reviewer = self._reviewers.pop(token, None)
        if reviewer is not None:
            self.issue(reviewer)
        return reviewer


class Access:
    """ASGI middleware that lets a request through or answers 403."""

    def __init__(self, app: ASGIApp, database: Database, addresses: Addresses, port: int) -> None:
        self.app = app
        self.database = database
        self.addresses = addresses
        self.hosts = {f"{name}:{port}" for name in LOCAL}
        self.cookie = f"soaes_review_{port}"
        self.reviewers: dict[str, str] = {}  # by secret: those that the database was asked for

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        request = Request(scope, receive)
        answer = self._refuse(request) or self._enter(request)
        if answer is None:
            scope["reviewer"] = self._reviewer(request.cookies.get(self.cookie, ""))
            answer = _refusal("token") if scope["reviewer"] is None else None
        await (answer or self.app)(scope, receive, send_with_headers)

    def _refuse(self, request: Request) -> Response | None:
        """Refuse a request to another host or from another page."""
        host = request.headers.get("host", "")
        if host not in self.hosts:
            return _refusal("host")
        origin = request.headers.get("origin")
        is_own = origin == f"http://{host}"
        if not is_own and (origin is not None or request.method not in SAFE_METHODS):
            return _refusal("origin")
        return None

    def _reviewer(self, secret: str) -> str | None:
        """Return whose browser has a secret."""
        reviewer = self.reviewers.get(secret) or self.database.session(secret)
        if reviewer is not None:
            self.reviewers[secret] = reviewer
        return reviewer

    def _enter(self, request: Request) -> Response | None:
        """Exchange a one-time token for a cookie; None where the request has none."""
        token = request.query_params.get("token")
        if token is None or request.url.path != "/" or request.method != "GET":
            return None
        answer = RedirectResponse("/", status_code=303)
        reviewer = self.addresses.redeem(token)
        if reviewer is not None:
            secret = secrets.token_urlsafe(32)
            self.database.add_session(secret, reviewer)
            answer.set_cookie(self.cookie, secret, httponly=True, samesite="lax")
        return answer  # without a valid token or an older cookie, "/" refuses


def _refusal(reason: str) -> Response:
    return PlainTextResponse(REFUSED[reason], status_code=403)
