"""An engine of vLLM in a process of its own (vllm_process.py), under its own environment's Python.

Everything that vLLM does here goes through such a process: speculation that is timed
(vllm_backend.py), answers and log-likelihoods (vllm_model.py), hidden states (vllm_hidden.py).
"""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from soaes.decode.backends import vllm_environment, vllm_process
from soaes.pipeline.processes import die_with_parent

ENVIRONMENT = {
    # no further process behind the engine's, which would spin while the other engine is timed
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    # Triton's attention, the only one with float32 on a GPU, rounds to TF32 by default
    "TRITON_F32_DEFAULT": "ieee",
    "HF_HUB_OFFLINE": "1",
}


def arguments(model: Path, dtype: str, device: str) -> dict[str, Any]:
    """Return the arguments of vllm.LLM that every engine has.

    Args:
        model: Folder of the model.
        dtype: float32, bfloat16 or float16.
        device: cpu or cuda.
    """
    return {
        "model": str(model.absolute()),
        "dtype": dtype,
        "generation_config": "vllm",
        "seed": 0,
        "enforce_eager": device == "cpu",
    }


@contextmanager
def started(
    engine: dict[str, Any], sampling: dict[str, Any], device: str, threads: int
) -> Iterator[VllmProcess]:
    """Start a process with one engine; it ends when its input is closed.

    Args:
        engine: Arguments of vllm.LLM.
        sampling: Arguments of vllm.SamplingParams for every text that is written.
        device: cpu, cuda, or one GPU as in cuda:1.
        threads: CPU threads.
    """
    # a path to our libraries would hide vLLM's
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    # numba uses all cores by default, which made ngram 80 times slower
    settings = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), str(threads))
    if ":" in device:
        settings["CUDA_VISIBLE_DEVICES"] = _visible(device)
    # -P: no module beside vllm_process.py hides one of vLLM's environment
    command = [str(vllm_environment.python()), "-P", vllm_process.__file__]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=ENVIRONMENT | inherited | settings,
        preexec_fn=die_with_parent,  # or it would hold its GPUs until a request's end
    ) as process:
        running = VllmProcess(process)
        running.ask({"engine": engine, "sampling": sampling})
        yield running


def _visible(device: str) -> str:
    """The one GPU that a process may see, of those that this one sees.

    Raises:
        ValueError: This one does not see so many.
    """
    number = int(device.partition(":")[2])
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if not visible:
        return str(number)
    devices = visible.split(",")
    if number >= len(devices):
        raise ValueError(
            f"device={device}: CUDA_VISIBLE_DEVICES={visible} leaves {len(devices)} to this "
            f"process; set runtime.execution.device=cuda:{len(devices) - 1} or less"
        )
    return devices[number]


class VllmProcess:
    """A running vLLM process: one line of JSON asked, one line answered."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for its answer; vllm_process.py lists both.

        Raises:
            RuntimeError: vLLM reported an error, or its process ended.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise self._ended()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"vLLM: {answer['error']}")
        return answer

    def ask_for_array(self, request: dict[str, Any]) -> np.ndarray:
        """Send a request that is answered by an array of float32.

        Raises:
            RuntimeError: vLLM reported an error, or its process ended.
        """
        shape = self.ask(request)["shape"]
        assert self.process.stdout is not None
        size = math.prod(shape) * np.dtype(np.float32).itemsize
        data = self.process.stdout.read(size)
        if len(data) < size:
            raise self._ended()
        return np.frombuffer(bytearray(data), np.float32).reshape(shape)

    def _ended(self) -> RuntimeError:
        return RuntimeError(
            f"the vLLM process ended with exit code {self.process.wait()}; "
            "the log above has its last words"
        )
