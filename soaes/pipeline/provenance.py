"""What is recorded beside a recipe but not hashed: the code, the libraries and the machine."""

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
ROOT = Path(__file__).parent.parent.parent  # the folder that holds `soaes`
NO_GPU = "no cuda here"  # the machine of a speed that was composed where there is no GPU


def code_digest(recipe: Recipe) -> str:
    """Return a digest of the code that a recipe calls.

    It covers the modules of the stage's function and of its options, and everything of ours that
    these import.
    """
    files: set[Path] = set()
    for key, value in flatten(recipe.written).items():
        if key.rpartition(".")[2] == "_target_":
            _add_sources(value.rpartition(".")[0], files)
    content = b"".join(path.read_bytes() for path in sorted(files))
    return hashlib.sha256(content).hexdigest()[:12]


def sources(module: str) -> set[Path]:
    """Return the files of a module and of everything of ours that it imports, however far."""
    files: set[Path] = set()
    _add_sources(module, files)
    return files


def _add_sources(module: str, files: set[Path]) -> None:
    """Add the file of a module and of every module of ours that its import statements reach."""
    if not module.startswith("soaes."):
        return
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return
    path = Path(spec.origin)
    if path in files:
        return
    files.add(path)
    for imported in _imported_modules(path):
        _add_sources(imported, files)


@functools.cache
def _imported_modules(path: Path) -> list[str]:
    """Return the modules of ours that a file names, in an import or as a dotted path in a string.

    Settings name the class that they build as a string, so that they need not import it. A file is
    parsed once, however many stages a process runs.
    """
    modules = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            module = node.value.rpartition(".")[0]
            if module.startswith("soaes.") and _is_module(module):
                modules.append(module)
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("soaes"):
            continue
        # `from soaes.data import chat` names a module of ours in either part
        names = [str(node.module)]
        names.extend(f"{node.module}.{alias.name}" for alias in node.names)
        for name in names:
            if name != "soaes" and _is_module(name):
                modules.append(name)
    return modules


def _is_module(name: str) -> bool:
    return (ROOT / f"{name.replace('.', '/')}.py").exists()


def provenance() -> dict[str, Any]:
    """Return the commit of the code, the machine and the versions of the libraries."""
    return {
        "commit": _commit(),
        "machine": machine(),
        "versions": {name: metadata.version(name) for name in LIBRARIES},
    }


def _commit() -> str:
    """Return the commit of the checkout that this file is tracked in, or the installed version.

    An installed package may lie in an environment inside somebody else's repository, whose commit
    says nothing about this code.
    """
    if shutil.which("git") is None:
        return _installed_version()
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    tracked = subprocess.run([*git, "ls-files", "--error-unmatch", here.name], capture_output=True)
    if tracked.returncode:
        return _installed_version()
    describe = ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    return subprocess.run([*git, *describe], capture_output=True, encoding="utf-8").stdout.strip()


def _installed_version() -> str:
    """Return the version that is installed; code copied without its history has none."""
    try:
        return f"soaes {metadata.version('soaes')}"
    except metadata.PackageNotFoundError:
        return "unknown: neither a checkout nor installed"


@functools.cache
def machine(device: str = "cpu") -> str:
    """Return what a measurement is valid for: `AMD EPYC, 2 cores`, or the name of the GPU.

    Args:
        device: `cpu` or `cuda`.
    """
    if device.startswith("cuda"):
        return _gpu_name() or NO_GPU
    return f"{_cpu_name()}, {os.cpu_count()} cores"


def _gpu_name() -> str | None:
    """Return the kinds of GPU that nvidia-smi names, each once; None where it names none."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return None
    command = [smi, "--query-gpu=name", "--format=csv,noheader"]
    named = subprocess.run(command, capture_output=True, encoding="utf-8")
    if named.returncode:  # it says why on the same stream as the names
        return None
    return ", ".join(dict.fromkeys(named.stdout.strip().splitlines())) or None


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
