"""vLLM as a reader of texts: the final hidden states before given tokens.

They are what is multiplied with the output matrix, so they hold every logit at every temperature,
in the space of a few thousand numbers a token. The model itself is cut over several devices (tensor
parallel); its output matrix is not among what vLLM loads. Knows texts of token ids: not rows, not
formats.

# N tokens, D width of the model
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from soaes.decode.backends import vllm_engine, vllm_environment
from soaes.decode.backends.vllm_engine import VllmProcess
from soaes.model.folder import text_config
from soaes.pipeline.runtime import Execution

# Tokens that vLLM reads at once, at least; a text is read in one piece.
TOKENS_A_STEP = 2048

# texts: token ids, and the positions (from 1 on) of the tokens before which states are asked for
Texts = list[tuple[list[int], list[int]]]
Read = Callable[[Texts], torch.Tensor]


@contextmanager
def open_vllm_reader(model: Path, longest: int, dtype: str, execution: Execution) -> Iterator[Read]:
    """Start vLLM as a reader.

    Args:
        model: The model's folder.
        longest: Tokens of a text at most.
        dtype: Of weights and arithmetic: float32, bfloat16 or float16.
        execution: Device, how many of them, and threads.

    Yields:
        A function from texts to hidden_ND of the tokens asked for, text by text, in float32 on
        the CPU. All texts of a call are read together.

    Raises:
        ValueError: vLLM is not installed, or cannot cut the model so.
    """
    vllm_environment.check_installed("teacher_logits=transformers")
    devices = vllm_environment.tensor_parallel(model.name, text_config(model), execution)
    engine = {
        **vllm_engine.arguments(model, dtype, execution.device),
        "tensor_parallel_size": devices,
        "runner": "pooling",
        "convert": "embed",
        "pooler_config": {"task": "token_embed"},
        "max_model_len": longest,
        "max_num_batched_tokens": max(longest, TOKENS_A_STEP),
        "enable_chunked_prefill": False,
        "enable_prefix_caching": False,
    }
    if execution.device != "cpu":
        engine["gpu_memory_utilization"] = vllm_environment.READER_SHARE
    with vllm_engine.started(engine, {}, execution.device, execution.threads) as process:
        yield partial(_read, process)


def _read(process: VllmProcess, texts: Texts) -> torch.Tensor:
    """hidden_ND before the texts' wanted tokens."""
    documents, wanted = zip(*texts, strict=True)
    return torch.from_numpy(process.ask_for_array({"documents": documents, "wanted": wanted}))
