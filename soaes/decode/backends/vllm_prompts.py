"""vLLM as a reader: of a text's tokens the k likeliest and their log-probabilities, from an engine in a process of its own (vllm_child.py).

vLLM normalises over its whole vocabulary at temperature 1, and tells no logits beside it. Knows texts of token ids: not rows, not formats.

# N tokens, K ids of each"""

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from soaes.decode.backends import vllm_environment
from soaes.decode.backends.vllm_backend import Child, started

TOKENS_A_STEP = 2048  # a step's logits in float32 are 1.2 GB at V = 152,064, and vLLM sets no memory aside for them

Texts = list[
    tuple[list[int], list[int]]
]  # token ids, and the places (from 1 on) of the tokens that are asked for
Read = Callable[[Texts], tuple[np.ndarray, np.ndarray]]


@contextmanager
def open_vllm_reader(
    model: Path, k: int, longest: int, *, dtype: str, device: str, devices: int, threads: int
) -> Iterator[Read]:
    """Texts -> (ids_NK, logs_NK) of the tokens asked for, text after text: what stands before a token says of it, in nats, the likeliest first.

    longest: tokens of a text at most. devices: the model is cut over so many (tensor parallel)."""
    if not vllm_environment.python().exists():
        raise ValueError(
            f"reading with vLLM needs its own environment and {vllm_environment.python()} is not there; `make vllm` installs it, "
            f"or set {vllm_environment.VLLM} to the Python of one, or teacher_logits=transformers"
        )
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
    with started(engine, {"prompt_logprobs": k}, threads) as child:
        yield partial(_read, child, k)


def _read(child: Child, k: int, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    if not texts:
        return np.empty((0, k), np.int32), np.empty((0, k), np.float32)
    documents, wanted = zip(*texts)
    answer = child.ask({"documents": documents, "wanted": wanted})
    return tuple(
        np.frombuffer(base64.b64decode(answer[name]), dtype).reshape(-1, k)
        for name, dtype in (("ids", np.int32), ("logs", np.float32))
    )
