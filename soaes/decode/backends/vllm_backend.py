"""vLLM in an environment and processes of its own: one engine with speculation, one without, both started once for a row.

Prompts go as token ids, tokens and seconds come back over pipes (vllm_child.py), the counters become ours here. By vLLM's own doing
three things differ from the other backends: its first forward reads the prompt alone; it drafts n tokens also where fewer may still be
written; its draft model is warped by temperature, not by top-p, which keeps the target's law and costs acceptance."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from soaes.decode.backends import vllm_environment, vllm_process
from soaes.decode.backends.base import (
    DecoderPair,
    ExternalGeneration,
    SpeculationSpec,
    speculation_spec,
)
from soaes.decode.base import check_request
from soaes.pipeline.validation import check

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # no further process behind the engine's, which would spin while the other engine is timed
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


@contextmanager
def open_vllm(
    decode: partial,
    folders: dict[str, Path],
    *,
    eos: int,
    sampling: dict[str, float],
    dtype: str,
    device: str,
    threads: int,
) -> Iterator[DecoderPair]:
    """decode: one of ours, as a description; folders: the models it takes, by its argument names."""
    plan = speculation_spec(decode, "vllm")
    check(dtype=dtype, **sampling)
    _refuse(plan, sampling, device)
    positions = min(
        json.loads((folder / "config.json").read_text())["max_position_embeddings"]
        for folder in folders.values()
    )
    engine = _engine(folders["target"], dtype, device, positions)
    wanted = {**sampling, "top_k": 0, "stop_token_ids": [eos]}
    with ExitStack() as running:
        method = baseline = Decoder(running.enter_context(started(engine, wanted, threads)))
        if plan.kind != "none":
            engine |= {
                "speculative_config": _speculation(
                    plan, folders.get("draft"), sampling["temperature"]
                )
            }
            method = Decoder(running.enter_context(started(engine, wanted, threads)))
        yield DecoderPair(method, baseline, plan.n, positions)


def _refuse(plan: SpeculationSpec, sampling: dict[str, float], device: str) -> None:
    """What cannot be had: no environment, or tokens that are not the target's.

    On a CPU vLLM 0.32 expands temperature and top-p of a request to its drafted tokens through a copy that is thrown away
    (vllm/utils/cpu_triton_utils.py, _expand_kernel_impl), so that the target's logits are divided by whatever the memory held."""
    if not vllm_environment.python().exists():
        raise ValueError(
            f"backend=vllm needs vLLM's own environment and {vllm_environment.python()} is not there; `make vllm` installs it, "
            f"or set {vllm_environment.VLLM} to the Python of one, or backend=native"
        )
    if device == "cpu" and plan.kind != "none" and sampling["temperature"] > 0:
        raise ValueError(
            f"temperature={sampling['temperature']}: on a CPU vLLM's speculation keeps the target's law under greedy decoding alone; "
            "set sampling=greedy, or backend=native"
        )


def _engine(target: Path, dtype: str, device: str, positions: int) -> dict[str, Any]:
    """The arguments of vllm.LLM. No prefix cache: every round reads its prompts, as the other backends do."""
    settings = {
        "model": str(target.absolute()),
        "dtype": dtype,
        "max_model_len": positions,
        "max_num_seqs": 1,
        "enable_prefix_caching": False,
        "generation_config": "vllm",
        "skip_tokenizer_init": True,
        "seed": 0,
    }
    return settings | (
        {"enforce_eager": True} if device == "cpu" else {"gpu_memory_utilization": 0.45}
    )  # two engines share a GPU


def _speculation(plan: SpeculationSpec, draft: Path | None, temperature: float) -> dict[str, Any]:
    if plan.kind == "model":
        chosen = (
            "probabilistic" if temperature else "greedy"
        )  # greedy, its default, would make the draft's distribution a one-hot
        return {
            "method": "draft_model",
            "model": str(draft.absolute()),
            "num_speculative_tokens": plan.n,
            "draft_sample_method": chosen,
        }
    return {
        "method": "ngram",
        "num_speculative_tokens": plan.n,
        "prompt_lookup_max": plan.max_ngram,
        "prompt_lookup_min": 1,
    }


@contextmanager
def started(engine: dict[str, Any], sampling: dict[str, Any], threads: int) -> Iterator["Child"]:
    """A running engine; its process ends with its input."""
    given = {
        key: value for key, value in os.environ.items() if key != "PYTHONPATH"
    }  # a path to our libraries is none to vLLM's
    counts = dict.fromkeys(
        ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), str(threads)
    )  # numba's default, all cores, made ngram 80 times slower
    # -P: beside the child lies a file called vllm.py, this one
    command = [str(vllm_environment.python()), "-P", vllm_process.__file__]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen(command, **pipes, env=ENVIRONMENT | given | counts) as process:
        child = Child(process)
        child.ask({"engine": engine, "sampling": sampling})
        yield child


class Child:
    """One vLLM process: a line asked, a line answered."""

    def __init__(self, process: subprocess.Popen):
        self.process = process

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """RuntimeError with vLLM's own words, or where its process ended."""
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(
                f"the vLLM process ended with exit code {self.process.wait()}; the log above has its last words"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"vLLM: {answer['error']}")
        return answer


class Decoder:
    """The call form of our decoders. A generator's seed becomes the request's."""

    def __init__(self, child: Child):
        self.child = child

    def generate(self, prompt_ids: list[int], max_new_tokens: int, generator) -> ExternalGeneration:
        check_request(prompt_ids, max_new_tokens)
        return translated(
            self.child.ask(
                {"ids": prompt_ids, "max_tokens": max_new_tokens, "seed": generator.initial_seed()}
            )
        )


def translated(answer: dict[str, Any]) -> ExternalGeneration:
    """vLLM's counters before and after a prompt, as our counts.

    Every forward makes what it accepted and one token more. Where the text ended inside its last block, steps + accepted - tokens of
    these were not emitted, the one more first; accepted tokens among them are taken off, by position they stay counted."""
    before, after, tokens = answer["before"], answer["after"], answer["tokens"]
    drafted, accepted = (
        after.get(name, 0) - before.get(name, 0)
        for name in ("num_draft_tokens", "num_accepted_tokens")
    )
    per_position = [
        late - early
        for early, late in zip(
            *(told.get("num_accepted_tokens_per_pos", []) for told in (before, after))
        )
    ]
    unwritten = max(0, answer["steps"] + accepted - len(tokens) - 1)
    counts = {
        "steps": answer["steps"],
        "accepted": accepted - unwritten,
        "drafted": drafted,
        "prefixes_per_position": per_position,
    }
    return ExternalGeneration(tokens, **counts, seconds=answer["seconds"])
