"""The process that holds one vLLM engine: a line of JSON in, a line out, until its input ends.

Runs under the Python of vLLM's own environment, where this package is not installed.

    in   {"engine": {...}, "sampling": {...}}         once: arguments of LLM and SamplingParams
    out  {"ready": true}
    in   {"ids": [...], "max_tokens": 40, "seed": 7}  a prompt, timed
    out  {"tokens": [...], "steps": 9, "seconds": 0.2, "before": {...}, "after": {...}}
    in   {"prompts": [[...]], "max_tokens": 40}       prompts, as many at once as there is room for
    out  {"answers": [[...]]}
    in   {"texts": [{"ids": [...], "start": 9, "next": [...]}]}
    out  {"scores": [{"ids": [...], "next": [...], "is_greedy": [...]}]}
    in   {"documents": [[...]], "wanted": [[...]]}    texts, and the positions of tokens in each
    out  {"shape": [90, 64]}                          and float32 behind the line: hidden states
    out  {"error": "..."}                             in place of any answer
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import numpy as np

COUNTERS = ("num_drafts", "num_draft_tokens", "num_accepted_tokens", "num_accepted_tokens_per_pos")


def main() -> None:
    """Answer requests from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever vLLM prints goes to the log, not between the answers
    llm: Any = None
    sampling: dict[str, Any] = {}
    answer: dict[str, Any]
    for line in sys.stdin:
        request = json.loads(line)
        array = np.empty(0, np.float32)
        try:
            if llm is None:
                llm = start(request["engine"])
                sampling = request["sampling"]
                answer = {"ready": True}
            elif "documents" in request:
                array = hidden_states(llm, **request)
                answer = {"shape": array.shape}
            elif "prompts" in request:
                answer = {"answers": write(llm, sampling, **request)}
            elif "texts" in request:
                answer = {"scores": score(llm, **request)}
            else:
                answer = generate(llm, sampling, **request)
        except Exception as error:  # whatever it is, the parent is to read it
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer).encode() + b"\n" + array.tobytes())
        answers.flush()


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


def write(
    llm: Any, sampling: dict[str, Any], prompts: list[list[int]], max_tokens: int
) -> list[list[int]]:
    """Answer prompts; return the new tokens of each."""
    from vllm import SamplingParams

    params = SamplingParams(**sampling, max_tokens=max_tokens, detokenize=False)
    outputs = llm.generate(as_prompts(prompts), params, use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs]


def score(llm: Any, texts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return how likely texts are, and what may follow them.

    Args:
        llm: The engine.
        texts: Of each its token ids, the position from which on they are scored, and the tokens
            that may follow it.

    Returns:
        Of each text the log-probabilities in nats of its scored tokens and of those that may
        follow, and of every one of these (ids first) whether it is the likeliest. A text of which
        no token is scored reads what it shares with earlier ones from the cache.
    """
    from vllm import SamplingParams

    params = []
    for text in texts:
        scored = 0 if text["start"] < len(text["ids"]) else None  # 0: the prompt's tokens alone
        following = list(dict.fromkeys(text["next"]))
        params.append(
            SamplingParams(
                temperature=0,
                max_tokens=1,
                prompt_logprobs=scored,
                logprob_token_ids=following,
                detokenize=False,
            )
        )
    outputs = llm.generate(as_prompts([text["ids"] for text in texts]), params, use_tqdm=False)
    scores = []
    for text, output in zip(texts, outputs):
        start = text["start"]
        prompt_logprobs = (output.prompt_logprobs or [])[start:]
        entries = [at[token] for at, token in zip(prompt_logprobs, text["ids"][start:])]
        answer = output.outputs[0]
        is_greedy = [entry.rank == 1 for entry in entries]
        is_greedy += [token == answer.token_ids[0] for token in text["next"]]
        score = {
            "ids": [entry.logprob for entry in entries],
            "next": [answer.logprobs[0][token].logprob for token in text["next"]],
            "is_greedy": is_greedy,
        }
        scores.append(score)
    return scores


def hidden_states(
    llm: Any,
    documents: list[list[int]],
    wanted: list[list[int]],
) -> np.ndarray:
    """Return the final hidden states before each wanted token, document by document.

    As the model's last norm leaves them: what is multiplied with the output matrix to predict it.

    Returns:
        hidden_ND, float32.
    """
    from vllm import PoolingParams

    params = PoolingParams(use_activation=False)  # not scaled to unit length
    prompts = as_prompts(documents)
    outputs = llm.encode(prompts, pooling_params=params, pooling_task="token_embed", use_tqdm=False)
    parts = []
    for output, positions in zip(outputs, wanted):
        states_TD = output.outputs.data.float().numpy()
        parts.append(states_TD[np.array(positions) - 1])
    return np.concatenate(parts)


def as_prompts(texts: list[list[int]]) -> list[dict[str, list[int]]]:
    """Return texts of token ids as vLLM takes them."""
    return [{"prompt_token_ids": ids} for ids in texts]


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
