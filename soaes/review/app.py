"""The page's addresses: one HTML page, its files, and JSON for what it asks.

| request | answer |
|---|---|
| GET / | the page |
| GET /assets/NAME | its script and styles |
| POST /api/next | the item to decide on next, with the progress |
| POST /api/open | an item that this person has decided on, to be changed |
| POST /api/decide | a decision is written; then as /api/next |
| POST /api/renew | the item on the screen is kept for this person |
| GET /api/mine | what this person decided on last |
| GET /api/queue | a part of the list of items |
| GET /api/progress | progress, bounds, agreement, people |

A POST names the person whose page sends it: where another person's address was opened in the same
browser, the older tab is refused. Nobody is told what others decided on an item. A decision that
cannot be written is answered with the reason and a status that is not 200: the page then says
"unsaved".
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from soaes.data.curation.document import SURROGATE
from soaes.report.page.single_file import ASSETS as REPORT_ASSETS
from soaes.review import account, queue
from soaes.review.access import Access, Addresses
from soaes.review.database import Assignment, ChangedElsewhereError, Database, NewDecision

ASSETS = Path(__file__).parent / "assets"
SHARED = (
    "base.css",
    "language.js",
    "theme.js",
    "dom.js",
    "differences.js",
)  # with the report's page
FILES = {
    **{name: REPORT_ASSETS / name for name in SHARED},
    **{name: ASSETS / name for name in ("review.css", "review.js", "icon.svg")},
}
MAX_BODY = 4_000_000  # bytes of a request

Body = dict[str, Any]
TYPES: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
}


class RequestError(Exception):
    """What a page asked for cannot be done; the status says why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def app(
    database: Database, addresses: Addresses, port: int, title: str, rubric: str = ""
) -> Starlette:
    """Return the application.

    Args:
        database: The review.
        addresses: The one-time addresses that open the page.
        port: The port that it listens to.
        title: What is reviewed, for the page.
        rubric: By what people decide, which the page shows as text; "" for nothing.
    """
    review = _Review(database, title, rubric)
    routes = [
        Route("/", review.page),
        Route("/assets/{name}", _asset),
        Route("/api/next", _answering(review.next), methods=["POST"]),
        Route("/api/open", _answering(review.open), methods=["POST"]),
        Route("/api/decide", _answering(review.decide), methods=["POST"]),
        Route("/api/renew", _answering(review.renew), methods=["POST"]),
        Route("/api/mine", review.mine),
        Route("/api/queue", review.queue),
        Route("/api/progress", review.progress),
    ]
    access = Middleware(Access, database=database, addresses=addresses, port=port)
    return Starlette(routes=routes, middleware=[access])


class _Review:
    """Answers by a database; methods run in threads."""

    def __init__(self, database: Database, title: str, rubric: str) -> None:
        self.database = database
        self.title = title
        self.rubric = rubric
        environment = Environment(loader=FileSystemLoader(ASSETS), autoescape=True)
        self.template = environment.get_template("review.html.jinja")

    def page(self, request: Request) -> Response:
        """Answer the page, without an item."""
        text = self.template.render(
            title=self.title, reviewer=request.scope["reviewer"], rubric=self.rubric
        )
        return HTMLResponse(text)

    def next(self, reviewer: str, _: Body) -> Body:
        """Return the next item and the progress."""
        return self._work(reviewer, self.database.next(reviewer))

    def open(self, reviewer: str, body: Body) -> Body:
        """Return an item that this person has decided on."""
        identifier, again = _typed(body, "item", "str"), _typed(body, "again", "bool")
        assignment = self.database.assignment(identifier, reviewer, again)
        if assignment is None or not assignment.version:
            raise RequestError(404, "you have not decided on this item; items come in their order")
        return self._work(reviewer, assignment)

    def decide(self, reviewer: str, body: Body) -> Body:
        """Write a decision; return its version, the next item and the progress."""
        values = {
            field.name: _typed(body, field.name, str(field.type)) for field in fields(NewDecision)
        }
        try:
            version = self.database.decide(reviewer, NewDecision(**values))
        except ChangedElsewhereError as error:
            raise RequestError(409, "changed in another tab") from error
        except ValueError as error:
            raise RequestError(422, str(error)) from None
        return {"saved": version, **self.next(reviewer, {})}

    def renew(self, reviewer: str, body: Body) -> Body:
        """Keep the item on the screen."""
        return {"kept": self.database.renew(reviewer, _typed(body, "item", "str"))}

    def mine(self, request: Request) -> Response:
        """Answer the items that this person decided on last, oldest first."""
        return JSONResponse({"decisions": queue.latest(self.database, request.scope["reviewer"])})

    def queue(self, request: Request) -> Response:
        """Answer a part of the list of items."""
        reviewer, query = request.scope["reviewer"], request.query_params
        found = queue.listed(
            self.database,
            reviewer,
            show=query.get("show", "all"),
            words=query.get("words", ""),
            start=_whole(query.get("start", "0")),
        )
        return JSONResponse(found)

    def progress(self, request: Request) -> Response:
        """Answer all of the progress."""
        return JSONResponse(
            {
                **account.account(self.database),
                "headline": account.headline(self.database, request.scope["reviewer"]),
                "seconds": [
                    {"kind": kind, "task": task, "seconds": seconds}
                    for (kind, task), seconds in account.seconds_by_kind(self.database).items()
                ],
                "people": account.people(self.database),
                "verdicts": account.verdict_counts(self.database),
            }
        )

    def _work(self, reviewer: str, assignment: Assignment | None) -> Body:
        progress = account.headline(self.database, reviewer)
        return {"work": _work_json(assignment), "progress": progress}


def _work_json(assignment: Assignment | None) -> Body | None:
    if assignment is None:
        return None
    return assignment._asdict()


def _answering(
    method: Callable[[str, Body], Body],
) -> Callable[[Request], Awaitable[Response]]:
    """Turn a method over JSON objects into an endpoint."""

    async def endpoint(request: Request) -> Response:
        try:
            body = await _body(request)
            reviewer = request.scope["reviewer"]
            if body.get("reviewer") != reviewer:
                raise RequestError(403, f"this browser belongs to {reviewer} now")
            answer = await run_in_threadpool(method, reviewer, body)
        except sqlite3.Error as error:  # such as a full disk; the page sends it again
            return JSONResponse({"error": str(error)}, status_code=503)
        except RequestError as error:
            answer = {"error": str(error)}
            if isinstance(error.__cause__, ChangedElsewhereError):
                answer["work"] = _work_json(error.__cause__.assignment)
            return JSONResponse(answer, status_code=error.status)
        return JSONResponse(answer)

    return endpoint


async def _body(request: Request) -> Body:
    """Read the JSON object of a request."""
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY:
            raise RequestError(413, f"a request has at most {MAX_BODY:,} bytes")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise RequestError(422, "a request is a JSON object")
    return body


def _typed(body: Body, name: str, kind: str) -> Any:
    value: Any = body.get(name)
    if type(value) not in TYPES[kind] or value != value:
        raise RequestError(422, f"{name}={value!r}: must be of type {kind}")
    if kind == "str" and SURROGATE.search(value):
        raise RequestError(422, f"{name} holds half a character (a lone surrogate)")
    return value


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def _asset(request: Request) -> Response:
    path = FILES.get(request.path_params["name"])
    return FileResponse(path) if path else Response(status_code=404)
