"""Which keys of a configuration a job reads, and which of its overrides change nothing.

An override that reaches neither the recipe of the goal nor the runtime is a mistake: the row would
be another than the one asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from soaes.pipeline import conf_folders
from soaes.pipeline.command_line import key_of, parse
from soaes.pipeline.compose import REFERENCE, referred_key, stage_keys

# What every job reads beside its goal: see `compose.runtime_settings`.
OF_THE_RUNTIME = ("goal", "dry", "runtime", "logger", "endpoint", "hydra")


class Reader:
    """Follows the references of one configuration, as OmegaConf resolves them.

    Args:
        cfg: A composed configuration.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg = cfg
        self.written: Any = OmegaConf.to_container(cfg, resolve=False)

    def keys_read(self, key: str) -> set[str]:
        """Return the key of a node, of all that it holds, and of all that these refer to."""
        found: set[str] = set()
        self._visit(key, found)
        return found

    def _visit(self, key: str, found: set[str]) -> None:
        if key in found:
            return
        found.add(key)
        value: Any = self.written
        path = key.split(".")
        for place, part in enumerate(path):
            if isinstance(value, str):  # a reference half-way: the rest lies in what it refers to
                owner = ".".join(path[:place])
                self._follow(value, owner, found, rest=path[place:])
                return
            value = _child(value, part)
        if isinstance(value, dict):
            for name in value:
                self._visit(f"{key}.{name}", found)
        elif isinstance(value, list):
            for index in range(len(value)):
                self._visit(f"{key}.{index}", found)
        elif isinstance(value, str):
            self._follow(value, key, found, rest=[])

    def _follow(self, text: str, key: str, found: set[str], rest: list[str]) -> None:
        """Visit what the references in the value of a key refer to, the inner ones first."""
        while match := REFERENCE.search(text):
            reference = match.group(1)
            value = ""
            if ":" not in reference:  # a resolver's name and arguments, as in ${machine:cpu}
                referred = referred_key(reference, key)
                self._visit(".".join([referred, *rest]), found)
                found.add(referred)
                plain = OmegaConf.select(self.cfg, referred, throw_on_missing=False)
                value = plain if isinstance(plain, str) else ""
            text = text[: match.start()] + value + text[match.end() :]


def _child(value: Any, part: str) -> Any:
    if isinstance(value, dict):
        return value.get(part)
    if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
        return value[int(part)]
    return None


def idle_overrides(cfg: DictConfig, job: list[str]) -> list[str]:
    """Return the overrides of a job that change neither what its goal is nor how it is run.

    Args:
        cfg: The job's configuration.
        job: Its overrides.
    """
    overrides = parse(job)
    shape = tuple(_shape(override) for override in overrides)
    if shape not in _read_of_shape:
        _read_of_shape[shape] = Reader(cfg).keys_read(str(cfg.goal))
    read = _read_of_shape[shape]
    idle = []
    for override in overrides:
        keys = _keys_set(override)
        if keys and not any(_is_read(key, read) for key in keys):
            idle.append(str(override.input_line))
    return idle


# Jobs that differ in plain values alone read the same keys, and following them takes a while.
_read_of_shape: dict[tuple[str, ...], set[str]] = {}


def _shape(override: Override) -> str:
    """Return an override, without its value where that cannot change which keys are read."""
    if override.is_delete() or _is_group(override) or key_of(override) in ("goal", "subject"):
        return str(override.input_line)
    value = override.value()
    is_plain = isinstance(value, (int, float, str)) and "$" not in str(value)
    return key_of(override) if is_plain else str(override.input_line)


def _is_group(override: Override) -> bool:
    return conf_folders.is_group(str(override.key_or_group))


def _keys_set(override: Override) -> list[str]:
    """Return the keys that an override sets: its own, or those of the file that it chooses.

    The file of a default option may set none.
    """
    if not _is_group(override):
        return [key_of(override)]
    group = str(override.key_or_group)
    path = conf_folders.option_file(group, override.value())
    if path is None:
        return [override.package or group]
    text = path.read_text(encoding="utf-8")
    header = re.search(r"^# @package (\S+)", text, re.MULTILINE)
    package = override.package or (header.group(1) if header else group.replace("/", "."))
    if package == "_global_":
        package = ""
    written = yaml.safe_load(text) or {}
    if package and "defaults" in written:  # what it takes from other files lies there as well
        return [package]
    return [".".join([package, key]).strip(".") for key in _leaves(written) if key]


def _leaves(value: Any, path: str = "") -> Iterator[str]:
    if not isinstance(value, dict):
        yield path
        return
    for name, inner in value.items():
        if name != "defaults":
            yield from _leaves(inner, f"{path}.{name}".strip("."))


def _is_read(key: str, read: set[str]) -> bool:
    """Tell whether a key or something in it is read."""
    if re.split("[./]", key)[0] in OF_THE_RUNTIME:
        return True
    return key in read or any(other.startswith(f"{key}.") for other in read)


def advice(cfg: DictConfig, override: str) -> str:
    """Return which stages read what an override sets, and how to choose a goal that does."""
    (parsed,) = parse([override])
    keys = _keys_set(parsed)
    reader = Reader(cfg)
    stages = [
        stage
        for stage in stage_keys(cfg)
        if any(_is_read(key, reader.keys_read(stage)) for key in keys)
    ]
    if not stages:
        return "no stage reads it"
    return f"it is read by {', '.join(stages)}; choose one with goal= or subject="
