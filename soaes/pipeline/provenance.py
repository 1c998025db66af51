"""What is recorded beside a recipe but not hashed: the code, the libraries and the machine that made an output."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from soaes.pipeline.labels import flatten
from soaes.pipeline.recipe import Recipe

LIBRARIES = ("torch", "transformers", "pytorch-lightning", "tokenizers", "numpy")


def _sources(module: str, seen: set[Path]) -> None:
    """Add a module's file and, from its import statements, those of ours that it reads."""
    if not module.startswith("soaes."):
        return
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or Path(spec.origin) in seen:
        return
    seen.add(Path(spec.origin))
    for node in ast.walk(ast.parse(Path(spec.origin).read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("soaes"):
            for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                if (
                    name != "soaes"
                    and (
                        Path(__file__).parent.parent.parent / f"{name.replace('.', '/')}.py"
                    ).exists()
                ):
                    _sources(name, seen)


def code_digest(recipe: Recipe) -> str:
    """A digest of the code that a recipe calls: the stage's own, its options', and what these import of ours."""
    targets = [
        value
        for key, value in flatten(recipe.written).items()
        if key.rpartition(".")[2] == "_target_"
    ]
    files: set[Path] = set()
    for target in targets:
        _sources(target.rpartition(".")[0], files)
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(files))).hexdigest()[:12]


def provenance() -> dict[str, Any]:
    """What is recorded beside a recipe but not hashed: the code, the libraries and the machine that made the output."""
    here = Path(__file__).parent
    git = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() or "unknown"
    return {
        "commit": commit,
        "machine": machine(),
        "versions": {name: metadata.version(name) for name in LIBRARIES},
    }


@functools.cache
def machine(device: str = "cpu") -> str:
    """What a measurement is valid for: `AMD EPYC, 2 cores`, or the GPU's name."""
    if device.startswith("cuda"):
        smi = shutil.which("nvidia-smi")
        ask = [smi, "--query-gpu=name", "--format=csv,noheader"]
        return (
            subprocess.run(ask, capture_output=True, text=True).stdout.strip()
            if smi
            else f"no {device} here"
        )
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        model = next(
            (
                line.partition(":")[2].strip()
                for line in cpuinfo.read_text().splitlines()
                if line.startswith("model name")
            ),
            model,
        )
    return f"{model}, {os.cpu_count()} cores"
