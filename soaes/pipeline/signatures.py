"""What the function or class of a `_target_` takes, read from its source.

A job is checked when it is composed, and composing must not import torch; the source can be read
without importing it.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from soaes.pipeline.validation import nearest

PACKAGE = Path(__file__).parent.parent


@dataclass(frozen=True)
class Parameter:
    """One parameter of a function, or of a class when it is created."""

    annotation: str
    """As it is written: `int | None`; empty if there is none."""

    required: bool
    """Whether it has no default."""


def parameters(target: str) -> dict[str, Parameter]:
    """Return the named parameters of a function or class of ours, in their order.

    A class without an `__init__` has that of its nearest base of ours, and one whose `__init__`
    passes `**kwargs` on takes what that base takes as well. `*args` and `**kwargs` are left out.

    Args:
        target: Dotted path, for example `soaes.stages.train.sft`.

    Raises:
        ValueError: There is no such module, or nothing of that name in it.
    """
    module, _, name = target.rpartition(".")
    definitions = _definitions(module)
    if name not in definitions:
        raise ValueError(f"_target_: {module} has no {name}; {nearest(name, list(definitions))}")
    definition = definitions[name]
    if isinstance(definition, ast.ClassDef):
        return _init_parameters(module, definition)
    return _named_parameters(definition)


Function = ast.FunctionDef | ast.AsyncFunctionDef


def _file(module: str) -> Path:
    return PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")


@functools.cache
def _source(module: str) -> ast.Module:
    path = _file(module)
    if not path.is_file():
        modules = [
            ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
            for file in PACKAGE.rglob("*.py")
        ]
        raise ValueError(f"_target_: there is no module {module}; {nearest(module, modules)}")
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imported(module: str) -> frozenset[str]:
    """Return the libraries that loading a module of ours imports, such as `torch`.

    Modules of ours that it imports are followed; imports inside functions do not count.
    """
    libraries: set[str] = set()
    seen: set[str] = set()
    modules = [module]
    while modules:
        current = modules.pop()
        if current in seen:
            continue
        seen.add(current)
        for name in _imported_names(current):
            library = name.partition(".")[0]
            if library != PACKAGE.name:
                libraries.add(library)
            elif _file(name).is_file():
                modules.append(name)
    return frozenset(libraries)


def _imported_names(module: str) -> Iterator[str]:
    """Yield the dotted names that a module imports; `from a import b` may mean a or a.b."""
    for node in _source(module).body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def _definitions(module: str) -> dict[str, Function | ast.ClassDef]:
    """Return the public functions and classes that a module defines, by name."""
    return {
        node.name: node
        for node in _source(module).body
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_")
    }


def _init_parameters(module: str, definition: ast.ClassDef) -> dict[str, Parameter]:
    for node in definition.body:
        if isinstance(node, Function) and node.name == "__init__":
            own = _named_parameters(node)
            own.pop("self")
            bases = _bases(module, definition) if node.args.kwarg else ()
            for base in bases:
                return parameters(base) | own
            return own
    for base in _bases(module, definition):
        return parameters(base)
    return {}


def _bases(module: str, definition: ast.ClassDef) -> Iterator[str]:
    """Yield the dotted paths of a class's bases that are ours."""
    imported = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in _source(module).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for base in definition.bases:
        first, _, rest = ast.unparse(base).partition(".")
        path = imported.get(first, f"{module}.{first}" if first in _definitions(module) else "")
        if path.startswith("soaes."):
            yield f"{path}.{rest}" if rest else path


def _named_parameters(function: Function) -> dict[str, Parameter]:
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    without_default = len(positional) - len(arguments.defaults)
    found = {}
    for index, argument in enumerate(positional):
        found[argument.arg] = _parameter(argument, required=index < without_default)
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        found[argument.arg] = _parameter(argument, required=default is None)
    return found


def _parameter(argument: ast.arg, required: bool) -> Parameter:
    annotation = "" if argument.annotation is None else ast.unparse(argument.annotation)
    return Parameter(annotation, required)
