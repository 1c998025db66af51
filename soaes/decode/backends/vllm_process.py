"""The process that holds one vLLM engine: a line of JSON in, a line out, until its input ends.

Runs under the Python of vLLM's own environment, where this package is not installed.

    in   {"engine": {...}, "sampling": {...}}         once: arguments of LLM and SamplingParams
    out  {"ready": true}
    in   {"ids": [...], "max_tokens": 40, "seed": 7}  a prompt
    out  {"tokens": [...], "steps": 9, "seconds": 0.2, "before": {...}, "after": {...}}
    in   {"documents": [[...]], "wanted": [[...]]}    texts, and the positions of tokens in each
    out  {"ids": "...", "logs": "..."}                the k likeliest there: int32, float32, base64
    out  {"error": "..."}                             in place of any answer
"""

from __future__ import annotations

import base64
import json
import os
import sys
import time
from typing import Any

import numpy as np

COUNTERS = ("num_drafts", "num_draft_tokens", "num_accepted_tokens", "num_accepted_tokens_per_pos")


def main() -> None:
    """Answer requests from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever vLLM prints goes to the log, not between the answers
    llm: Any = None
    sampling: dict[str, Any] = {}
    answer: dict[str, Any]
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if llm is None:
                llm = start(request["engine"])
                sampling = request["sampling"]
                answer = {"ready": True}
            elif "documents" in request:
                answer = read(llm, sampling, **request)
            else:
                answer = generate(llm, sampling, **request)
        except Exception as error:  # whatever it is, the parent is to read it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def start(engine: dict[str, Any]) -> Any:
    """Create the engine from the arguments of vllm.LLM."""
    from vllm import LLM

    return LLM(**engine, disable_log_stats=False)


def generate(
    llm: Any, sampling: dict[str, Any], ids: list[int], max_tokens: int, seed: int
) -> dict[str, Any]:
    """Decode one prompt.

    Returns:
        tokens: The new tokens. steps: Forwards of the target, the first over the prompt. seconds:
        Wall time of the steps alone. before, after: vLLM's counters.
    """
    import torch
    from vllm import SamplingParams

    torch.manual_seed(seed)  # a draft model's sampling takes no seed of the request's
    params = SamplingParams(**sampling, max_tokens=max_tokens, seed=seed, detokenize=False)
    engine = llm.llm_engine  # can be stepped one forward at a time
    before = counters(engine)
    steps = 0
    outputs = []
    began = time.perf_counter()
    engine.add_request("one", {"prompt_token_ids": ids}, params)
    while engine.has_unfinished_requests():
        outputs = engine.step()
        steps += 1
    seconds = time.perf_counter() - began
    return {
        "tokens": list(outputs[0].outputs[0].token_ids),
        "steps": steps,
        "seconds": seconds,
        "before": before,
        "after": counters(engine),
    }


def read(
    llm: Any,
    sampling: dict[str, Any],
    documents: list[list[int]],
    wanted: list[list[int]],
) -> dict[str, str]:
    """Read texts and return what precedes each wanted token predicts for it, document by document.

    Returns:
        ids_NK and logs_NK of the N wanted tokens, the likeliest first, encoded.
    """
    from vllm import SamplingParams

    params = SamplingParams(**sampling, max_tokens=1, flat_logprobs=True, detokenize=False)
    prompts = [{"prompt_token_ids": ids} for ids in documents]
    outputs = llm.generate(prompts, params, use_tqdm=False)
    ids, logs = [], []
    for output, positions in zip(outputs, wanted):
        logprobs = output.prompt_logprobs
        ids.append(likeliest(logprobs.token_ids, len(logprobs), positions))
        logs.append(likeliest(logprobs.logprobs, len(logprobs), positions))
    return {"ids": encode(ids, "int32"), "logs": encode(logs, "float32")}


def likeliest(values: list[Any], tokens: int, positions: list[int]) -> np.ndarray:
    """Select [positions, k] of vLLM's flat list of a text of `tokens` tokens.

    The list has nothing for the first token, and for every other the token's own value, then those
    of the k likeliest.
    """
    return np.array(values).reshape(tokens - 1, -1)[np.array(positions) - 1, 1:]


def encode(parts: list[np.ndarray], dtype: str) -> str:
    """Concatenate arrays and encode them in base64."""
    return base64.b64encode(np.concatenate(parts).astype(dtype).tobytes()).decode()


def counters(engine: Any) -> dict[str, Any]:
    """Return vLLM's counters of speculation since its start; none without speculation.

    By their names without the common prefix.
    """
    metrics = {
        metric.name.removeprefix("vllm:spec_decode_"): metric for metric in engine.get_metrics()
    }
    return {
        name: metrics[name].values if name.endswith("_per_pos") else metrics[name].value
        for name in COUNTERS
        if name in metrics
    }


if __name__ == "__main__":
    main()
