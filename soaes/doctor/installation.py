"""Whether Python and the libraries are what setup.cfg asks for. Loads none of them."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

from soaes.doctor.finding import Case, Check, Finding, fault, ok

CHECKOUT = Path(__file__).parent.parent.parent  # or where the package is installed
SHOWN = ("torch", "transformers", "pytorch-lightning", "hydra-core", "wandb")


def python(case: Case) -> Iterator[Finding]:
    """Compare Python's version with the oldest that works."""
    version = platform.python_version()
    least = _python_requires().removeprefix(">=")
    needed = tuple(int(part) for part in least.split("."))
    if sys.version_info < needed:
        yield fault("Python", f"{version}, and soaes needs {least} or newer", "install a newer one")
    else:
        yield ok("Python", f"{version}, {sys.executable}")


def libraries(case: Case) -> Iterator[Finding]:
    """Compare each library that is required with the version that is installed."""
    absent = missing()
    if absent:
        value = f"not installed: {', '.join(absent)} (versions are compared once they are)"
        yield fault("libraries", value, _way_out())
        return
    from packaging.requirements import Requirement

    fitting = []
    for requirement in map(Requirement, requirements()):
        version = version_of(requirement.name) or ""
        if requirement.specifier.contains(version, prereleases=True):
            fitting.append(f"{requirement.name} {version}")
        else:
            value = f"{version}, and setup.cfg asks for {requirement}"
            yield fault(requirement.name, value, _way_out())
    shown = [library for library in fitting if library.split()[0] in SHOWN]
    count = f"{len(fitting)} of {len(requirements())} are as setup.cfg asks"
    yield ok("libraries", f"{count}: {', '.join(shown)} ..." if shown else count)


def missing() -> list[str]:
    """Return the required libraries that are not installed."""
    names = map(_name, requirements())
    return [name for name in names if version_of(name) is None]


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement.strip())[0]


def requirements() -> list[str]:
    """Return the requirements of setup.cfg; of an installed package, those it was built with."""
    config = _setup()
    if config is not None:
        lines = config["options"]["install_requires"].splitlines()
        return [line for line in lines if line.strip()]
    return [line for line in metadata.requires("soaes") or [] if "extra ==" not in line]


def version_of(distribution: str) -> str | None:
    """Return the installed version of a distribution; None where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _setup() -> ConfigParser | None:
    """Read the setup.cfg beside the package; None where it is not a checkout."""
    config = ConfigParser()
    config.read(CHECKOUT / "setup.cfg", encoding="utf-8")
    is_ours = config.get("metadata", "name", fallback="") == "soaes"
    return config if is_ours else None


def _python_requires() -> str:
    config = _setup()
    if config is not None:
        return config["options"]["python_requires"]
    return str(metadata.metadata("soaes")["Requires-Python"])


def _way_out() -> str:
    """Say how to get the libraries: by the checkout's own environment, where there is one."""
    environment = CHECKOUT / ".venv"
    if not (environment / "bin" / "python").exists():
        return "`make .venv/ready` installs all, or `python -m pip install .`"
    if Path(sys.prefix).resolve() != environment.resolve():
        return f"`source {environment}/bin/activate`, whose Python has them"
    return "`python -m pip install --editable .` installs what is missing"


CHECKS: dict[str, Check] = {"Python": python, "libraries": libraries}
