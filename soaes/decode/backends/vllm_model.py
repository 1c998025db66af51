"""vLLM for answers and exams: the model cut over several devices, many requests at once.

Greedy answers and log-likelihoods are those of transformers but for rounding, which may settle a
near tie (soaes.decode.near_ties) in another way. The letters of an exam question are one request,
and what its prompt shares with earlier ones is read from the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from soaes.data.chat import load_tokenizer
from soaes.decode.backends import vllm_engine, vllm_environment
from soaes.decode.backends.language_model import LanguageModel
from soaes.decode.backends.vllm_engine import VllmProcess
from soaes.metrics.exams import Asked, Judge, Judgement
from soaes.model.folder import text_config
from soaes.pipeline.runtime import Execution
from soaes.pipeline.validation import DTYPES, check_one_of

# Tokens of a step. Where given texts are scored their logits are held at once, .6 GB in float32 at
# a vocabulary of 152,000, and vLLM sets no memory aside for them.
TOKENS_A_STEP = 1024

# Answers that are written at once, at most.
MAX_ANSWERS = 256


class VllmModel:
    """A model in a running process of vLLM.

    Args:
        process: The process.
        positions: Tokens that the model reads at once.
    """

    def __init__(self, process: VllmProcess, positions: int) -> None:
        self.process = process
        self.positions = positions
        self.judge: Judge = VllmJudge(process, positions)
        self.library: str | None = vllm_environment.library("vllm")

    def write(self, prompts: list[list[int]], max_new_tokens: int) -> list[list[int]]:
        """See LanguageModel."""
        request = {"prompts": prompts, "max_tokens": max_new_tokens}
        answers: list[list[int]] = self.process.ask(request)["answers"]
        return answers

    def reference_nats(
        self, prompts: Sequence[list[int]], answers: Sequence[list[int]]
    ) -> list[float]:
        """See LanguageModel."""
        texts = []
        for prompt, answer in zip(prompts, answers, strict=True):
            ids = prompt + answer[:-1]
            texts.append({"ids": ids, "start": len(prompt), "next": answer[-1:]})
        scores = self.process.ask({"texts": texts})["scores"]
        return [-sum(score["ids"] + score["next"]) for score in scores]


class VllmJudge:
    """See `soaes.metrics.exams.Judge`.

    Args:
        process: The process.
        positions: Tokens that the model reads at once.
    """

    def __init__(self, process: VllmProcess, positions: int) -> None:
        self.process = process
        self.positions = positions - 1  # vLLM always writes a token

    def __call__(self, asked: list[Asked]) -> list[list[Judgement]]:
        """See Judge."""
        scores = self.process.ask({"texts": [_text(one) for one in asked]})["scores"]
        return [_judgements(one, score) for one, score in zip(asked, scores, strict=True)]


def _text(asked: Asked) -> dict[str, Any]:
    """What vllm_process.py is asked: of answers of one token nothing that is read is scored."""
    longest = max(map(len, asked.answers))
    return {
        "ids": asked.tokens,
        "start": len(asked.tokens) - (longest - 1),
        "next": [answer[-1] for answer in asked.answers],
    }


def _judgements(asked: Asked, score: dict[str, Any]) -> list[Judgement]:
    """The judgement of each answer, from the scores of the tokens that were read and its last."""
    num_read = len(score["ids"])
    judgements = []
    for index, answer in enumerate(asked.answers):
        first = num_read - (len(answer) - 1)  # of the tokens that were read
        loglikelihood = sum(score["ids"][first:]) + score["next"][index]
        greedy = all(score["is_greedy"][first:num_read]) and score["is_greedy"][num_read + index]
        judgements.append((loglikelihood, greedy))
    return judgements


@contextmanager
def open_vllm_model(
    model: Path, execution: Execution, dtype: str = "float32"
) -> Iterator[LanguageModel]:
    """Start vLLM on a model.

    Args:
        model: Folder of the model.
        execution: Device, how many of them, and threads.
        dtype: Of weights and arithmetic: float32, bfloat16 or float16.

    Raises:
        ValueError: vLLM is not installed, or cannot cut the model so.
        RuntimeError: The engine failed, with vLLM's own message.
    """
    check_one_of("dtype", dtype, DTYPES)
    vllm_environment.check_installed("backend=native")
    config = text_config(model)
    devices = vllm_environment.tensor_parallel(model.name, config, execution)
    tokenizer = load_tokenizer(model)
    end_id = tokenizer.token_to_id(tokenizer.chat_format.end)
    engine = {
        **vllm_engine.arguments(model, dtype, execution.device),
        "tensor_parallel_size": devices,
        "max_model_len": -1,  # the model's positions, as far as there is memory for their cache
        "max_num_batched_tokens": TOKENS_A_STEP,
        "max_num_seqs": MAX_ANSWERS,
        "enable_prefix_caching": True,
        "skip_tokenizer_init": True,
    }
    if execution.device != "cpu":
        engine["gpu_memory_utilization"] = vllm_environment.MODEL_SHARE
    stops = [] if end_id is None else [end_id]
    greedy = {"temperature": 0, "stop_token_ids": stops, "ignore_eos": True}
    with vllm_engine.started(engine, greedy, execution.device, execution.threads) as process:
        yield VllmModel(process, config["max_position_embeddings"])
