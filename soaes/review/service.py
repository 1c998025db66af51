"""The page as a service of this machine: a listener, one-time addresses and the application."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

import uvicorn

from soaes.data.curation.document import SURROGATE
from soaes.review.access import Addresses
from soaes.review.app import app
from soaes.review.database import Database

HOST = "127.0.0.1"
LONGEST_NAME = 64  # characters


class Service:
    """Answers until it is stopped."""

    def __init__(
        self,
        database: Database,
        reviewers: Sequence[str],
        port: int,
        title: str,
        announce: Callable[[str, str], None],
        rubric: str = "",
    ) -> None:
        """Listen, and announce the addresses.

        Args:
            database: The review.
            reviewers: Who gets an address.
            port: 0 takes a free one.
            title: What is reviewed, for the page.
            announce: Called with a person and an address that opens one browser for them.
            rubric: By what people decide, for the page; "" for nothing.

        Raises:
            ValueError: A name is empty, too long or not UTF-8, or the port is taken.
        """
        for name in reviewers:
            if not name.strip() or len(name) > LONGEST_NAME:
                raise ValueError(f"--reviewer {name!r}: a name has 1 to {LONGEST_NAME} characters")
            if SURROGATE.search(name):
                raise ValueError(f"--reviewer {name!r}: is not UTF-8; write the name in it")
        database.register(reviewers)
        self._listener = _listen(port)
        self.port: int = self._listener.getsockname()[1]
        addresses = Addresses(f"http://{HOST}:{self.port}", announce)
        for name in reviewers:
            addresses.issue(name)
        config = uvicorn.Config(
            app(database, addresses, self.port, title, rubric),
            access_log=False,
            log_level="warning",
            server_header=False,
            ws="none",
            lifespan="off",
            timeout_graceful_shutdown=5,
        )
        self._server = uvicorn.Server(config)

    def run(self) -> None:
        """Answer until `stop`, SIGINT or SIGTERM."""
        self._server.run(sockets=[self._listener])

    def stop(self) -> None:
        """End `run`, from another thread."""
        self._server.should_exit = True


def _listen(port: int) -> socket.socket:
    """Listen on a port of this machine alone."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        raise ValueError(f"--port {port}: {error}; set --port 0 for a free one") from None
    return listener
