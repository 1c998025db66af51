"""vLLM as a reader of texts: the k likeliest tokens at given positions, with log-probabilities.

The engine runs in a process of its own (vllm_process.py). vLLM normalises over its whole vocabulary
at temperature 1 and returns no logits beside it. Knows texts of token ids: not rows, not formats.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from soaes.decode.backends import vllm_environment
from soaes.decode.backends.vllm_backend import VllmProcess, started

# N tokens, K ids of each

# a step's logits in float32 are 1.2 GB at V = 152,064, and vLLM sets no memory aside for them
TOKENS_A_STEP = 2048

# texts: token ids, and the positions (from 1 on) of the tokens that are asked for
Texts = list[tuple[list[int], list[int]]]
Read = Callable[[Texts], tuple[np.ndarray, np.ndarray]]


@contextmanager
def open_vllm_reader(
    model: Path, k: int, longest: int, *, dtype: str, device: str, devices: int, threads: int
) -> Iterator[Read]:
    """Start vLLM as a reader.

    Args:
        model: The model's folder.
        k: Ids to return for each token.
        longest: Tokens of a text at most.
        dtype: float32, bfloat16 or float16.
        device: cpu or cuda.
        devices: How many devices the model is split over (tensor parallel).
        threads: CPU threads.

    Yields:
        A function from texts to (ids_NK, logs_NK) of the tokens asked for, text by text: what the
        text before a token predicts for it, in nats, the likeliest first.

    Raises:
        ValueError: vLLM is not installed.
    """
    vllm_environment.check_installed("teacher_logits=transformers")
    engine = {
        "model": str(model.absolute()),
        "dtype": dtype,
        "max_model_len": longest + 1,
        "max_logprobs": k,
        "tensor_parallel_size": devices,
        "max_num_batched_tokens": TOKENS_A_STEP,
        "enable_chunked_prefill": True,
        "enable_prefix_caching": False,
        "generation_config": "vllm",
        "skip_tokenizer_init": True,
        "seed": 0,
        "enforce_eager": device == "cpu",
    }
    with started(engine, {"prompt_logprobs": k}, threads) as process:
        yield partial(_read, process, k)


def _read(process: VllmProcess, k: int, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    """(ids_NK, logs_NK) of the texts' wanted tokens."""
    if not texts:
        return np.empty((0, k), np.int32), np.empty((0, k), np.float32)
    documents, wanted = zip(*texts)
    answer = process.ask({"documents": documents, "wanted": wanted})
    ids = np.frombuffer(base64.b64decode(answer["ids"]), np.int32)
    logs = np.frombuffer(base64.b64decode(answer["logs"]), np.float32)
    return ids.reshape(-1, k), logs.reshape(-1, k)
