"""vLLM in an environment and processes of its own: one engine with speculation, one without.

Both are started once for a table row. Prompts go as token ids, tokens and seconds come back over
pipes (vllm_process.py), and vLLM's counters become ours here. Three things differ from the other
backends by vLLM's own doing: its first forward reads the prompt alone; it drafts n tokens also
where fewer may still be written; its draft model is warped by temperature, not by top-p, which
keeps the target's distribution and costs acceptance.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from soaes.decode.backends import vllm_engine, vllm_environment
from soaes.decode.backends.base import (
    BackendSettings,
    DecoderPair,
    ExternalGeneration,
)
from soaes.decode.backends.vllm_engine import VllmProcess
from soaes.decode.base import check_request
from soaes.decode.settings import SpeculationSpec, speculation_spec
from soaes.model import checkpoint
from soaes.model.folder import text_config
from soaes.model.vocabulary import pad_draft


@contextmanager
def open_vllm(folders: dict[str, Path], settings: BackendSettings) -> Iterator[DecoderPair]:
    """Start vLLM's engines.

    Args:
        folders: Model folders, see `model_folders`.
        settings: Our decoder as a description, sampling, dtype, device.

    Raises:
        ValueError: vLLM is not installed, or cannot decode by these settings.
        RuntimeError: An engine failed, with vLLM's own message.
    """
    spec = speculation_spec(settings.decode, "vllm")
    sampling = settings.sampling
    vllm_environment.check_backend(spec, sampling, settings.device)
    configs = [
        json.loads((folder / "config.json").read_text("utf-8")) for folder in folders.values()
    ]
    positions = min(config["max_position_embeddings"] for config in configs)
    engine = _engine_arguments(folders["target"], settings, positions)
    request = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": 0,
        "stop_token_ids": [settings.eos],
    }
    with ExitStack() as processes:

        def start(engine: dict[str, Any]) -> VllmProcess:
            started = vllm_engine.started(engine, request, settings.device, settings.threads)
            return processes.enter_context(started)

        draft = folders.get("draft")
        if draft is not None:
            draft = processes.enter_context(with_equal_rows(draft, folders["target"]))
        plain = start(engine)
        baseline = method = VllmDecoder(plain, 0)
        if spec.kind != "none":
            speculation = _speculation(spec, draft, sampling.greedy)
            engine = engine | {"speculative_config": speculation}
            speculating = start(engine)
            method = VllmDecoder(speculating, spec.n)
        yield DecoderPair(method, baseline, spec.n, positions)


@contextmanager
def with_equal_rows(draft: Path, target: Path) -> Iterator[Path]:
    """Yield the draft's folder, or a copy for a while with as many vocabulary rows as the target.

    vLLM accepts a draft and a target only with equal numbers of rows.
    """
    rows = text_config(target)["vocab_size"]
    if text_config(draft)["vocab_size"] == rows:
        yield draft
        return
    network = checkpoint.load(draft, "auto")
    pad_draft(network, draft, rows)
    with tempfile.TemporaryDirectory(prefix="draft-") as copy:
        checkpoint.save(network, Path(copy), draft)
        del network
        yield Path(copy)


def _engine_arguments(target: Path, settings: BackendSettings, positions: int) -> dict[str, Any]:
    """The arguments of vllm.LLM.

    No prefix cache: every round reads its prompts, as the other backends do.
    """
    longest = positions if settings.longest is None else min(positions, settings.longest)
    arguments = vllm_engine.arguments(target, settings.dtype, settings.device) | {
        "max_model_len": longest,  # vLLM starts only with a cache for a text of so many tokens
        "max_num_seqs": 1,
        "enable_prefix_caching": False,
        "async_scheduling": False,  # a step is a forward pass; None would be one too many a text
        "skip_tokenizer_init": True,
    }
    if settings.device == "cpu":
        return arguments
    share = vllm_environment.PAIR_SHARE  # two engines share a GPU
    return arguments | {"gpu_memory_utilization": share}


def _speculation(spec: SpeculationSpec, draft: Path | None, greedy: bool) -> dict[str, Any]:
    """vLLM's speculative_config."""
    if spec.kind == "model":
        assert draft is not None, "model_folders names the draft of a decoder that uses one"
        return {
            "method": "draft_model",
            "model": str(draft.absolute()),
            "num_speculative_tokens": spec.n,
            # greedy, vLLM's default, would make the draft's distribution a one-hot
            "draft_sample_method": "greedy" if greedy else "probabilistic",
        }
    return {
        "method": "ngram",
        "num_speculative_tokens": spec.n,
        "prompt_lookup_max": spec.max_ngram,
        "prompt_lookup_min": 1,
    }


class VllmDecoder:
    """A decoder in a vLLM process; a generator's seed becomes the request's.

    Args:
        process: The running process.
        n: Drafted tokens in a block; 0 without speculation.
    """

    def __init__(self, process: VllmProcess, n: int) -> None:
        self.process = process
        self.n = n

    def generate(
        self, prompt_ids: list[int], max_new_tokens: int, generator: torch.Generator
    ) -> ExternalGeneration:
        """Decode one prompt, see `Decoder.generate`."""
        check_request(prompt_ids, max_new_tokens)
        seed = generator.initial_seed()
        request = {"ids": prompt_ids, "max_tokens": max_new_tokens, "seed": seed}
        return translate(self.process.ask(request))


def translate(answer: dict[str, Any]) -> ExternalGeneration:
    """Turn vLLM's counters before and after a prompt into our counts.

    Every forward makes what it accepted and one token more. Where the text ended inside its last
    block, steps + accepted - tokens of these were not emitted, the one more first. Accepted tokens
    among them are subtracted; by position they stay counted.

    Args:
        answer: The process's answer to a prompt.
    """
    before, after, tokens = answer["before"], answer["after"], answer["tokens"]
    drafted = after.get("num_draft_tokens", 0) - before.get("num_draft_tokens", 0)
    accepted = after.get("num_accepted_tokens", 0) - before.get("num_accepted_tokens", 0)
    earlier = before.get("num_accepted_tokens_per_pos", [])
    later = after.get("num_accepted_tokens_per_pos", [])
    unwritten = max(0, answer["steps"] + accepted - len(tokens) - 1)
    return ExternalGeneration(
        tokens,
        steps=answer["steps"],
        accepted=accepted - unwritten,
        drafted=drafted,
        prefixes_per_position=[end - start for start, end in zip(earlier, later)],
        seconds=answer["seconds"],
    )
