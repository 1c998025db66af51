"""From a composed Hydra configuration to recipes, and from recipes to words: labels, differences, family trees.

Knows nodes and recipes only: it builds nothing and imports no torch."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from soaes.pipeline import resolvers
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.validation import check_target

STAGES = "soaes.stages."  # a node whose _target_ lies here is a stage; every other _target_ is an option of one


def recipe_at(cfg: DictConfig, key: str) -> Recipe:
    """The recipe of the stage at a node, e.g. `target.cpt` or `evaluate`.

    ValueError names the node and what to set when the key is unknown or something it needs is."""
    try:
        found = _value(_select(cfg, key), {})
    except MissingMandatoryValue as error:
        raise ValueError(
            f"{error.full_key or key} has no value; set it on the command line or in the scale"
        ) from None
    except InterpolationResolutionError as error:
        raise ValueError(
            f"{error.full_key or key}: {str(error).splitlines()[0]}{suggest(cfg, str(error))}"
        ) from None
    if not isinstance(found, Recipe):
        raise ValueError(
            f"{key} is not a stage but {type(found).__name__}; stages: {', '.join(stage_keys(cfg))}"
        )
    return found


def _select(cfg: DictConfig, key: str) -> Any:
    node: Any = cfg
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node:
            raise ValueError(f"there is no node {key!r}{suggest(cfg, key)}")
        node = node[part]
    return node


def suggest(cfg: DictConfig, text: str) -> str:
    """`; did you mean ...?` for the nearest stage keys to a misspelt one, or the list of stages."""
    known = list(stage_keys(cfg))
    words = [word.strip("'\"`") for word in text.replace("\n", " ").split()]
    near = [match for word in words for match in get_close_matches(word, known, 1, 0.6)]
    return f"; did you mean {near[0]}?" if near else f"; stages: {', '.join(known)}"


def stage_keys(cfg: DictConfig) -> Iterator[str]:
    """Keys of every stage node, as they may be given to goal= and subject=."""
    for path, node in _walk("", cfg):
        if "_target_" in node and str(node._get_node("_target_")).startswith(STAGES):
            yield path
        for key in node:
            inner = node._get_node(key)
            if inner._is_interpolation() and path in ("target", "draft"):
                yield f"{path}.{key}"


def override_keys(cfg: DictConfig) -> list[str]:
    """Every key that the command line may override."""
    return [f"{path}.{key}".lstrip(".") for path, node in _walk("", cfg) for key in node]


def _walk(path: str, node: DictConfig) -> Iterator[tuple[str, DictConfig]]:
    yield path, node
    for key in node:
        inner = node._get_node(key)
        if (
            isinstance(inner, DictConfig)
            and not inner._is_interpolation()
            and not inner._is_missing()
            and not inner._is_none()
        ):
            yield from _walk(f"{path}.{key}".lstrip("."), inner)


def _value(node: Any, seen: dict[int, Any]) -> Any:
    """A node as a plain value; stages become recipes, each resolved once however many read it."""
    if isinstance(node, ListConfig):
        return [_value(inner, seen) for inner in node]
    if not isinstance(node, DictConfig):
        return node
    if id(node) not in seen:
        plain = {str(key): _value(node[key], seen) for key in node}
        if check_target(plain.get("_target_", "soaes.")).startswith(STAGES):
            plain = Recipe(plain.pop("_target_"), plain)
        seen[id(node)] = plain
    return seen[id(node)]


# ---------------------------------------------------------------- words about recipes


def shipped_folder(name: str) -> Path:
    """Return a folder that comes with the code, `conf` or `experiments`.

    An installed package has it inside (`soaes/conf`, as package data), a checkout beside `soaes/`.
    """
    package = Path(__file__).parent.parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


CONF = shipped_folder("conf")

resolvers.register()


def chosen_option(arguments: list[str], group: str) -> str:
    """The option of a config group that a command line chooses: the last word for it, else run.yaml's."""
    given = [word.split("=", 1)[1] for word in arguments if word.startswith(f"{group}=")]
    defaults = OmegaConf.load(CONF / "run.yaml").defaults
    return (
        given[-1]
        if given
        else next(
            entry[group] for entry in defaults if isinstance(entry, DictConfig) and group in entry
        )
    )


def compose_job(job: list[str]) -> DictConfig:
    """A job as Hydra composes it. Which options are chosen makes most of the work, once for all jobs that differ in values alone."""
    try:
        words = OverridesParser.create().parse_overrides(job)
        options = [word for word in words if (CONF / word.key_or_group).is_dir()]
        values = [word for word in words if word not in options]
        if not all(word.type is OverrideType.CHANGE and word.package is None for word in values):
            return copy.deepcopy(
                _composed(*job)
            )  # added, deleted or misplaced: the order of words counts
        cfg = copy.deepcopy(_composed(*(word.input_line for word in options)))
        try:
            for word in values:
                OmegaConf.update(cfg, word.key_or_group, word.value(), merge=True)
        except OmegaConfBaseException:
            return copy.deepcopy(_composed(*job))  # which says what is wrong with it
        return cfg
    except HydraException as error:
        raise ValueError(_advice(str(error), job)) from None


@functools.lru_cache(maxsize=64)
def _composed(*words: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("run", list(words))


def runtime_settings(cfg: DictConfig) -> dict[str, Any]:
    """How stages are run, as plain values: conf/runtime, the logger, and where the data lies."""
    plain = OmegaConf.to_container(cfg.runtime, resolve=True)
    return {
        **plain,
        "logger": OmegaConf.to_container(cfg.logger, resolve=True),
        "root": cfg.data.get("root"),
        "dry": cfg.dry,
    }


def _advice(message: str, job: list[str]) -> str:
    """Hydra's message in one line, with the nearest valid override or option."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    lost = re.match(r"(?:In '.*': )?Could not find '(.*)/(.*)'", message)
    if lost:
        return f"{lines[0]} {nearest(lost[2], [path.stem for path in (CONF / lost[1]).glob('*.yaml')])}"
    for word in (word.lstrip("+~").split("=", 1)[0] for word in job):
        if word in message:
            return f"{lines[0]} {nearest(word, [*override_keys(compose_job([])), *_groups()])}"
    return lines[0]


def _groups() -> list[str]:
    return [path.name for path in CONF.iterdir() if path.is_dir()] + ["chain@target", "chain@draft"]


def nearest(word: str, known: list[str]) -> str:
    near = get_close_matches(word, known, 1, 0.5)
    return f"Did you mean {near[0]}?" if near else f"There are: {', '.join(sorted(known))}"
