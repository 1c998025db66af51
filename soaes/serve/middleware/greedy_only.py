"""Refuse requests that sample, for a server whose speculation is right under greedy decoding alone.

That is vLLM's on a CPU (see soaes.decode.backends.vllm_environment.check_backend), whose sampled
texts would be wrong without a word. Runs in vLLM's own environment, where soaes is not installed.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

# where requests say how tokens are chosen; of most the server's default is greedy, of this it is 1
SAMPLING = "sampling_params"
REFUSAL = (
    "temperature={}: on a CPU vLLM's speculation gives the target's distribution under greedy "
    "decoding alone; send temperature=0 or leave it out, or serve on a GPU"
)


async def greedy_only(request: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
    """Answer a request with status 400 if it samples, else hand it on.

    Args:
        request: Starlette's request.
        call_next: The rest of the server.
    """
    from starlette.responses import JSONResponse

    temperature = _temperature(await request.body()) if request.method == "POST" else 0
    if temperature:
        error = {"message": REFUSAL.format(temperature), "type": "BadRequestError", "code": 400}
        return JSONResponse({"error": error}, status_code=400)
    return await call_next(request)


def _temperature(body: bytes) -> Any:
    """Return what a request says, 0 where it says nothing; the server refuses what is no JSON."""
    try:
        settings = json.loads(body)
    except ValueError:
        return 0
    if not isinstance(settings, Mapping):
        return 0
    sampling = settings.get(SAMPLING)
    if isinstance(sampling, Mapping):
        return sampling.get("temperature", 1)
    return settings.get("temperature")
