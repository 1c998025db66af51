"""What the doctor finds, a line each, and how a check is run: what it raises is a finding too.

Imports the standard library alone, so that a broken installation is diagnosed and not met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from soaes.doctor.plan import Plan
    from soaes.pipeline.runtime import Runtime
    from soaes.pipeline.store import Store

Mark = Literal["ok", "warning", "fault"]

MAX_LISTED = 5  # findings of one kind; the others are counted


@dataclass(frozen=True)
class Finding:
    """One line of the doctor."""

    mark: Mark

    what: str
    """What was looked at, in a word or two."""

    value: str
    """What it is."""

    remedy: str = ""
    """What to do about it; only a finding that is ok needs none."""

    def __post_init__(self) -> None:
        if self.mark != "ok" and not self.remedy:
            raise ValueError(f"{self.what}: {self.value} is a {self.mark} without a remedy")

    @property
    def text(self) -> str:
        """The value, then the remedy."""
        return f"{self.value}; {self.remedy}" if self.remedy else self.value


def ok(what: str, value: str) -> Finding:
    """Find that something is as it should be."""
    return Finding("ok", what, value)


def warning(what: str, value: str, remedy: str) -> Finding:
    """Find something that slows a run or may end it."""
    return Finding("warning", what, value, remedy)


def fault(what: str, value: str, remedy: str) -> Finding:
    """Find something that a run would fail by."""
    return Finding("fault", what, value, remedy)


def fault_of(what: str, error: Exception) -> Finding:
    """Turn what a check raised into a fault.

    Errors of ours end in the way out, behind a semicolon.
    """
    text = " ".join(str(error).split())
    value, separator, remedy = text.rpartition("; ")
    if isinstance(error, ValueError) and separator:
        return fault(what, value, remedy)
    described = f"{type(error).__name__}: {text}"
    if isinstance(error, ImportError):
        return fault(what, described, "install what is missing: `make tables`, or `pip install .`")
    if isinstance(error, ValueError) and text:
        return fault(what, text, "correct it and run the doctor again")
    return fault(what, f"this check failed, {described}", "report this line as a bug of the doctor")


@dataclass(frozen=True)
class Case:
    """What the doctor looks at: the machine, and a command line that is to be run on it."""

    words: tuple[str, ...]
    """The overrides, as given to soaes.run."""

    with_torch: bool = False
    """Whether torch is loaded, in a process of its own, also where nothing needs it."""

    config_dir: str | None = None
    """The user's folder beside conf/, if there is one."""

    @property
    def store(self) -> Store:
        """The store that the words name, or SOAES_STORE; known also where they are refused."""
        from soaes.pipeline.resolvers import cache_folder
        from soaes.pipeline.store import Store

        try:
            return Store(cache_folder(list(self.words)).parent)
        except ValueError:  # no overrides at all
            return Store(cache_folder([]).parent)

    @property
    def store_is_named(self) -> bool:
        """Whether the user chose the store, and may have misspelt it."""
        return self.store.root != Path("store")

    @property
    def plan(self) -> Plan | None:
        """What the words ask for; None where they are refused."""
        return None if isinstance(self.outcome, Exception) else self.outcome

    @cached_property
    def runtime(self) -> Runtime | None:
        """How stages are run; known also where the words name a job that is refused."""
        if self.plan is not None:
            return self.plan.runtime
        try:
            from soaes.doctor.plan import compose_runtime

            return compose_runtime(list(self.words))
        except Exception:  # the words are the reason, and `outcome` has it
            return None

    @cached_property
    def outcome(self) -> Plan | Exception:
        """What the words ask for, or why they are refused."""
        try:
            from soaes.doctor.plan import compose

            return compose(list(self.words), self.store, self.config_dir)
        except Exception as error:  # whatever it is, the other checks go on
            return error


Check = Callable[[Case], Iterable[Finding]]


def findings(what: str, check: Check, case: Case) -> Iterator[Finding]:
    """Run a check; an exception ends it and is its last finding."""
    try:
        yield from check(case)
    except Exception as error:
        yield fault_of(what, error)


def listed(found: list[Finding], what: str, remedy: str) -> Iterator[Finding]:
    """Yield the first findings of one kind, and count the others.

    Args:
        found: All of them.
        what: Their kind, in the plural.
        remedy: How to see the others.
    """
    yield from found[:MAX_LISTED]
    left_out = len(found) - MAX_LISTED
    if left_out > 0:
        yield warning(what, f"{left_out} more of them are not listed", remedy)
