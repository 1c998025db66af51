"""The process that holds one vLLM engine: a line of JSON in, a line of JSON out, until its input ends.

Runs under the Python of vLLM's own environment, where nothing of ours is installed.

    in   {"engine": {...}, "sampling": {...}}                        once: what LLM and SamplingParams take
    out  {"ready": true}
    in   {"ids": [...], "max_tokens": 40, "seed": 7}                 a prompt
    out  {"tokens": [...], "steps": 9, "seconds": 0.2, "before": {...}, "after": {...}}
    in   {"documents": [[...]], "wanted": [[...]]}                   texts to read, and of each the places of tokens
    out  {"ids": "...", "logs": "..."}                               the k likeliest at each place: int32 and float32 in base64
    out  {"error": "..."}                                            in place of any answer
"""

import base64
import json
import os
import sys
import time

import numpy as np

COUNTERS = ("num_drafts", "num_draft_tokens", "num_accepted_tokens", "num_accepted_tokens_per_pos")


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever vLLM prints goes to the log, not between the answers
    llm = sampling = None
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if llm is None:
                llm, sampling, answer = start(asked["engine"]), asked["sampling"], {"ready": True}
            else:
                answer = (read if "documents" in asked else generate)(llm, sampling, **asked)
        except Exception as error:  # whatever it is, the parent is to read it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def start(settings: dict):
    from vllm import LLM

    return LLM(**settings, disable_log_stats=False)


def generate(llm, sampling: dict, ids: list, max_tokens: int, seed: int) -> dict:
    """New tokens of one prompt; steps: forwards of the target, its first over the prompt; seconds: of them alone."""
    import torch
    from vllm import SamplingParams

    torch.manual_seed(seed)  # a draft model's sampling takes no seed of the request's
    wanted = SamplingParams(**sampling, max_tokens=max_tokens, seed=seed, detokenize=False)
    engine = llm.llm_engine  # steps one at a time when it is told to
    before, steps = counters(engine), 0
    began = time.perf_counter()
    engine.add_request("one", {"prompt_token_ids": ids}, wanted)
    while engine.has_unfinished_requests():
        made = engine.step()
        steps += 1
    seconds = time.perf_counter() - began
    return {
        "tokens": list(made[0].outputs[0].token_ids),
        "steps": steps,
        "seconds": seconds,
        "before": before,
        "after": counters(engine),
    }


def read(llm, sampling: dict, documents: list, wanted: list) -> dict:
    """ids_NK and logs_NK of the N wanted tokens, document after document: what the text before a token says of it, the likeliest first."""
    from vllm import SamplingParams

    asked = SamplingParams(**sampling, max_tokens=1, flat_logprobs=True, detokenize=False)
    told = [
        output.prompt_logprobs
        for output in llm.generate(
            [{"prompt_token_ids": ids} for ids in documents], asked, use_tqdm=False
        )
    ]

    ids, logs = (
        [likeliest(getattr(one, name), len(one), at) for one, at in zip(told, wanted)]
        for name in ("token_ids", "logprobs")
    )
    return {"ids": coded(ids, "int32"), "logs": coded(logs, "float32")}


def likeliest(values: list, tokens: int, at: list):
    """[places, k] of vLLM's flat list of a text: nothing for its first token, and for every other the token's own, then the k likeliest's."""
    return np.array(values).reshape(tokens - 1, -1)[np.array(at) - 1, 1:]


def coded(parts: list, dtype: str) -> str:
    return base64.b64encode(np.concatenate(parts).astype(dtype).tobytes()).decode()


def counters(engine) -> dict:
    """vLLM's counters of speculation since its start, by their names without the common beginning; none without speculation."""
    told = {
        metric.name.removeprefix("vllm:spec_decode_"): metric for metric in engine.get_metrics()
    }
    return {
        name: told[name].values if name.endswith("_per_pos") else told[name].value
        for name in COUNTERS
        if name in told
    }


if __name__ == "__main__":
    main()
