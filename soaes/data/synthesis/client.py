"""Ask a server of the OpenAI protocol (chat completions), again where it is busy.

The key of the user's account is read from the environment, sent in a header, and stands nowhere
else: not in an error, whatever the server writes back, and not in a recipe.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from soaes.data.synthesis.calls import REFUSED, Reply, Request
from soaes.pipeline.runtime import Endpoint

if TYPE_CHECKING:
    import httpx

MAX_WAIT = 60.0  # seconds between two attempts
MAX_RETRY_AFTER = 600.0  # seconds that a server may ask for
MAX_SHOWN = 200  # characters of a server's message
BUSY = (408, 409, 425, 429)  # and all from 500 on
BAD_REQUEST = (400, 413, 422)  # because of what this request holds
FORBIDDEN = {
    401: "the key was refused",
    403: "the key may not use this model",
    404: "there is no such model, or base_url is wrong",
}


class EndpointError(ValueError):
    """The endpoint cannot be used, or did not answer in all attempts."""


class EndpointClient:
    """Answers requests through a server; see `soaes.data.synthesis.calls.Author`.

    Args:
        endpoint: Where the server is, and how often it is asked.
        sleep: Waits for some seconds; for tests.

    Raises:
        EndpointError: The variable that holds the key holds what no header can.
    """

    def __init__(self, endpoint: Endpoint, sleep: Callable[[float], None] = time.sleep) -> None:
        import httpx  # not needed to plan

        self._endpoint = endpoint
        self._sleep = sleep
        self._key = os.environ.get(endpoint.key_variable, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise EndpointError(
                f"{endpoint.key_variable}: must be ASCII without line breaks; set it again"
            )
        self._random = random.Random()
        self._client = httpx.Client(
            base_url=endpoint.base_url.rstrip("/") + "/",
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=endpoint.timeout,
            limits=httpx.Limits(max_connections=endpoint.concurrency),
        )

    def answer(self, request: Request) -> Reply:
        """Answer a request, in as many attempts as the endpoint allows.

        Raises:
            EndpointError: The server refuses the key or the model, cannot be reached, or is busy in
                every attempt.
        """
        body = {
            "model": request.model,
            "messages": [dict(message) for message in request.messages],
            **request.parameters,
        }
        for attempt in range(1, self._endpoint.attempts + 1):
            problem, retry_after = "", 0.0
            outcome = self._post(body)
            if isinstance(outcome, str):
                problem = outcome
            elif outcome.status_code in BAD_REQUEST:
                return Reply(self._shown(outcome), f"{REFUSED}{outcome.status_code}")
            elif outcome.status_code in FORBIDDEN:
                raise self._error(f"{FORBIDDEN[outcome.status_code]} ({self._shown(outcome)})")
            elif outcome.status_code in BUSY or outcome.status_code >= 500:
                problem = f"HTTP {outcome.status_code}: {self._shown(outcome)}"
                retry_after = _retry_after(outcome)
            elif outcome.status_code != 200:
                raise self._error(f"HTTP {outcome.status_code}: {self._shown(outcome)}")
            else:
                reply = _reply(outcome)
                if reply is not None:
                    return reply
                problem = f"not an answer of the OpenAI protocol: {self._shown(outcome)}"
            if attempt < self._endpoint.attempts:
                self._sleep(max(retry_after, self._wait(attempt)))
        raise self._error(f"no answer in {self._endpoint.attempts} attempts, at last: {problem}")

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def _post(self, body: dict[str, Any]) -> httpx.Response | str:
        """Return the response, or what went wrong on the way."""
        import httpx

        try:
            return self._client.post("chat/completions", json=body)
        except httpx.RequestError as error:  # a body that cannot be decompressed, too
            return f"{type(error).__name__}: {self._without_key(str(error))}"

    def _wait(self, attempt: int) -> float:
        """Return the seconds to wait: doubled each time, and spread at random."""
        longest = min(MAX_WAIT, self._endpoint.backoff * 2.0 ** (attempt - 1))
        return longest * self._random.uniform(0.5, 1.0)

    def _error(self, problem: str) -> EndpointError:
        way_out = "check endpoint.base_url, author.model"
        if self._key:
            key = f"the key in {self._endpoint.key_variable}"
        else:
            key = f"{self._endpoint.key_variable}, which is not set"
        return EndpointError(f"{self._endpoint.base_url}: {problem}; {way_out} and {key}")

    def _shown(self, response: httpx.Response) -> str:
        text = self._without_key(response.text)  # before it is cut: half a key is one, too
        return " ".join(text.split())[:MAX_SHOWN]

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


def _retry_after(response: httpx.Response) -> float:
    try:
        seconds = float(response.headers.get("retry-after", 0))
    except ValueError:  # a date
        return 0.0
    return min(MAX_RETRY_AFTER, max(0.0, seconds))


def _reply(response: httpx.Response) -> Reply | None:
    """Return the first choice of a response; None where it is no answer of the protocol."""
    try:
        body = response.json()
        choice = body["choices"][0]
        content = choice["message"].get("content")
        finish_reason = choice.get("finish_reason")
        usage = body.get("usage") or {}
        prompt_tokens = int(usage.get("prompt_tokens") or 0)
        completion_tokens = int(usage.get("completion_tokens") or 0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None
    text = content if isinstance(content, str) else ""
    return Reply(text, str(finish_reason), prompt_tokens, completion_tokens)
