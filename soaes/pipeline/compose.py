"""From the words of a command line to a composed configuration, and from its nodes to recipes.

The two steps, read downwards: `compose_job` has Hydra compose conf/ for one job, `recipe_at` turns
the node of a stage into a recipe with all its parents. Builds nothing and imports no torch.
"""

from __future__ import annotations

import functools
import pickle
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from soaes.pipeline import command_line, conf_folders, domains, origins, resolvers
from soaes.pipeline.conf_folders import CONF
from soaes.pipeline.recipe import Recipe, declared_name
from soaes.pipeline.runtime import Runtime
from soaes.pipeline.validation import check_target, nearest

# A node whose _target_ lies here is a stage; every other _target_ is an option of a stage.
STAGES = "soaes.stages."

# Options that conf/ got after recipes were named, by the declared name of their class, and their
# defaults. At its default such an option is left out of a recipe, which so keeps its name.
ADDED_OPTIONS = {
    "AutoregressiveSettings": {"batch": 1},
    "SpeculativeSettings": {"batch": 1},
    "PromptLookupSettings": {"batch": 1},
}

# The innermost reference of a value: in `${${subject}}` it is `${subject}`.
REFERENCE = re.compile(r"\$\{([^${}]*)\}")

resolvers.register()


# ------------------------------------------------------------- from words to a configuration


def compose_job(job: list[str]) -> DictConfig:
    """Compose the configuration of one job, as Hydra does, from its overrides.

    Models that the overrides name then replace the scale's, see `origins.choose`.

    Choosing the options of config groups is most of the work. Jobs that choose the same options
    share it, and differ in values that are set afterwards, those of their experiments included.

    Args:
        job: Overrides without sweeps, for example `["scale=tiny", "distill.alpha=0.5"]`.

    Raises:
        ValueError: Hydra cannot compose them; the message has the nearest valid key or option. Or
            a model that they name is none.
    """
    cfg = _composed_by_hydra(job)
    _check_empty_mappings(cfg, job)
    domains.settle(cfg)
    keep_tokenizer = command_line.last(job, "tokenizer") is not None
    origins.choose(cfg, CONF / "origin", keep_tokenizer)
    return cfg


def _composed_by_hydra(job: list[str]) -> DictConfig:
    try:
        overrides = OverridesParser.create().parse_overrides(job)
        options = [override for override in overrides if _chooses_option(override)]
        values = [override for override in overrides if override not in options]
        if not all(_only_changes_value(override) for override in values):
            return _composed_anew(job)  # the order of the overrides counts
        experiments = [override for override in options if override.key_or_group == "experiment"]
        of_experiment = _experiment_values(experiments)
        if of_experiment:
            options = [override for override in options if override not in experiments]
        cfg = _composed_anew([_as_typed(override) for override in options])
        try:
            for key, value in of_experiment.items():  # the last that run.yaml composes
                OmegaConf.update(cfg, key, value, merge=True)
            for override in values:
                OmegaConf.update(cfg, override.key_or_group, override.value(), merge=True)
        except OmegaConfBaseException:
            return _composed_anew(job)  # raises the error with Hydra's own explanation
        return cfg
    except (HydraException, ValueError) as error:  # Hydra raises both
        raise ValueError(_advice(str(error), job)) from None


def _chooses_option(override: Override) -> bool:
    return conf_folders.is_group(override.key_or_group)


def _only_changes_value(override: Override) -> bool:
    return override.type is OverrideType.CHANGE and override.package is None


def _as_typed(override: Override) -> str:
    assert override.input_line is not None, "the parser records what it reads"
    return override.input_line


def _experiment_values(overrides: list[Override]) -> dict[str, Any]:
    """Return what the file of the one chosen experiment sets, by top-level key.

    Empty if only Hydra can compose it: the file chooses options itself, or there is none.
    """
    if len(overrides) != 1 or not _only_changes_value(overrides[0]):
        return {}
    path = conf_folders.option_file("experiment", overrides[0].value())
    return dict(_file_values(path)) if path else {}


@functools.cache
def _file_values(path: Path) -> dict[str, Any]:
    if not path.read_text(encoding="utf-8").startswith("# @package _global_\n"):
        return {}
    written: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    if "defaults" in written:
        return {}
    return {key: value for key, value in written.items() if key != "hydra"}


def _composed_anew(words: list[str]) -> DictConfig:
    """Return a configuration of its own, which the caller may change."""
    cfg: DictConfig = pickle.loads(_composed(conf_folders.digest(), *words))
    return cfg


@functools.lru_cache(maxsize=64)
def _composed(own_files: str, *words: str) -> bytes:
    """Compose a configuration and pickle it: loading a pickle takes a fifth of a deep copy.

    Args:
        own_files: Digest of the user's folder, of which a composition is a function, too.
        words: The overrides.
    """
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return pickle.dumps(compose("run", [*words, *conf_folders.overrides()]))


def chosen_option(arguments: list[str], group: str) -> str:
    """Return the option of a config group that a command line chooses, else run.yaml's.

    Raises:
        ValueError: It chooses several.
    """
    chosen = command_line.last(arguments, group)
    if chosen is not None and chosen.is_sweep_override():
        raise ValueError(f"{chosen.input_line}: one {group} at a time; run the command for each")
    if chosen is not None:
        return str(chosen.value())
    defaults = OmegaConf.load(CONF / "run.yaml").defaults
    entries = [entry for entry in defaults if isinstance(entry, DictConfig)]
    return next(entry[group] for entry in entries if group in entry)


def runtime_settings(cfg: DictConfig) -> Runtime:
    """Return how stages are run: conf/runtime, the logger, the folders of data and models.

    Raises:
        ValueError: A setting is unknown or out of its range.
    """
    for key in ("runtime", "runtime.store", "logger", "logger.mode", "endpoint", "data", "dry"):
        node = OmegaConf.select(cfg, key, default=None)
        if node is None:
            raise ValueError(f"{key}: every run needs it; set it again")
    plain: Any = OmegaConf.to_container(cfg.runtime, resolve=True)
    places = {  # other nodes' settings
        "logger": "logger",
        "endpoint": "endpoint",
        "root": "data.root",
        "models": "target.model",
        "dry": "dry",
    }
    for key, place in places.items():
        if key in plain:
            raise ValueError(f"runtime.{key}: there is no such setting; Did you mean {place}?")
    plain["logger"] = OmegaConf.to_container(cfg.logger, resolve=True)
    plain["endpoint"] = OmegaConf.to_container(cfg.endpoint, resolve=True)
    plain["root"] = cfg.data.get("root")
    plain["models"] = _local_models(cfg)
    plain["dry"] = cfg.dry
    return Runtime.from_plain(plain)


def _local_models(cfg: DictConfig) -> dict[str, str]:
    """Return the user's models: the digest of each, by which recipes know it, and its folder."""
    folders = {}
    for model in origins.named(cfg):
        if origins.is_local(model):
            folders[resolvers.local_model(model.value)["digest"]] = model.value
    return folders


# --------------------------------------------------------------------- from nodes to recipes


def recipe_at(cfg: DictConfig, key: str) -> Recipe:
    """Return the recipe of the stage at a node.

    Args:
        cfg: A composed configuration.
        key: The dotted key of a stage's node, for example `target.cpt` or `evaluate`.

    Raises:
        ValueError: The key is no stage, or something that the stage needs has no value.
    """
    if not isinstance(key, str):
        raise ValueError(
            f"goal={'null' if key is None else key}: must name a node{suggest(cfg, '')}"
        )
    try:
        value = _resolved(_select(cfg, key), {})
    except MissingMandatoryValue as error:
        raise _no_value(error.full_key or key) from None
    except _ReadsItself as error:
        raise _cycle(_keys_of(cfg, error.nodes)) from None
    except InterpolationResolutionError as error:
        raise _unresolved(cfg, error, key) from None
    if not isinstance(value, Recipe):
        stages = ", ".join(stage_keys(cfg))
        raise ValueError(f"{key} is not a stage but {type(value).__name__}; stages: {stages}")
    return value


def _no_value(key: str) -> ValueError:
    return ValueError(f"{key} has no value; set it on the command line or in the scale")


def _unresolved(cfg: DictConfig, error: InterpolationResolutionError, key: str) -> ValueError:
    """Return why a `${...}` has no value, in the words of what failed inside it."""
    message = str(error).splitlines()[0]
    missing = re.search("Missing mandatory value: (.*)", message)
    if missing:
        return _no_value(missing.group(1))
    refused = re.match("ValueError raised while resolving interpolation: (.*)", message)
    if refused:  # by one of our resolvers, which says what to do
        return ValueError(refused.group(1))
    if message.startswith(("Recursive interpolation", "Interpolation to parent node")):
        return _cycle(_references(cfg, error.full_key or key))
    return ValueError(f"{error.full_key or key}: {message}{suggest(cfg, str(error))}")


class _ReadsItself(Exception):
    """A stage is among its own parents: itself, what it reads, and so on, up to itself again."""

    def __init__(self, nodes: list[DictConfig]) -> None:
        self.nodes = nodes


def _cycle(keys: list[str]) -> ValueError:
    return ValueError(f"{' -> '.join(keys)}: nothing can read itself; let one of them read another")


def _keys_of(cfg: DictConfig, nodes: list[DictConfig]) -> list[str]:
    """Return the keys of some stages."""
    keys = {}
    for path, written in _nodes(cfg):
        if str(written.get("_target_")).startswith(STAGES):
            keys[id(OmegaConf.select(cfg, path))] = path
    return [keys[id(node)] for node in nodes if id(node) in keys]


def _references(cfg: DictConfig, key: str) -> list[str]:
    """Return the keys that a value leads to, reference by reference, up to one that recurs."""
    written: Any = OmegaConf.to_container(cfg, resolve=False)
    keys = [key]
    while len(set(keys)) == len(keys):
        text = written
        for part in keys[-1].split("."):
            text = text.get(part) if isinstance(text, dict) else None
        reference = ""
        while isinstance(text, str) and (match := REFERENCE.search(text)):
            reference = referred_key(match.group(1), keys[-1])
            if match.group() == text:
                break
            inner = OmegaConf.select(cfg, reference, throw_on_missing=False)
            text = text.replace(match.group(), str(inner))
        if not reference:
            break
        keys.append(reference)
    return keys


def referred_key(reference: str, key: str) -> str:
    """Return the key that a reference names; `.x` in the value of a.b is a.x, and `..x` is x.

    Args:
        reference: What stands between `${` and `}`.
        key: The key in whose value it stands.
    """
    name = reference.lstrip(".")
    ups = len(reference) - len(name)
    if ups == 0:
        return name
    return ".".join([*key.split(".")[:-ups], name])


def _select(cfg: DictConfig, key: str) -> Any:
    node: Any = cfg
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node:
            raise ValueError(f"there is no node {key!r}{suggest(cfg, key)}")
        node = node[part]
    return node


def _resolved(node: Any, seen: dict[int, Any], outer: Sequence[DictConfig] = ()) -> Any:
    """Resolve a node to plain values, in which stages are recipes.

    `seen` holds what each node came to, so that a stage is resolved once however many read it, and
    `outer` the nodes that are being resolved.
    """
    if isinstance(node, ListConfig):
        return [_resolved(inner, seen, outer) for inner in node]
    if not isinstance(node, DictConfig):
        return node
    for place, other in enumerate(outer):
        if other is node:
            raise _ReadsItself([*outer[place:], node])
    if id(node) not in seen:
        inside = (*outer, node)
        plain = {str(key): _resolved(node[key], seen, inside) for key in node}
        is_stage = "_target_" in plain and check_target(plain["_target_"]).startswith(STAGES)
        seen[id(node)] = Recipe(plain.pop("_target_"), plain) if is_stage else _options(plain)
    return seen[id(node)]


def _options(plain: dict[str, Any]) -> dict[str, Any]:
    """Return a node's options without those of ADDED_OPTIONS that have their defaults."""
    defaults = ADDED_OPTIONS.get(declared_name(str(plain.get("_target_"))), {})
    return {
        key: value
        for key, value in plain.items()
        if key not in defaults or isinstance(value, bool) or value != defaults[key]
    }


# ----------------------------------------------------------------------- what could be meant


def suggest(cfg: DictConfig, text: str) -> str:
    """Return `; did you mean KEY?` for the stage key nearest to a word of `text`, or all keys."""
    known = list(stage_keys(cfg))
    for word in text.replace("\n", " ").split():
        near = get_close_matches(word.strip("'\"`"), known, 1, 0.6)
        if near:
            return f"; did you mean {near[0]}?"
    return f"; stages: {', '.join(known)}"


def stage_keys(cfg: DictConfig) -> Iterator[str]:
    """Yield the keys of all stages, as goal= and subject= take them."""
    for path, node in _nodes(cfg):
        if str(node.get("_target_")).startswith(STAGES):
            yield path
        if path in ("target", "draft"):
            for key, value in node.items():
                if isinstance(value, str) and "${" in value:  # as in `chat: ${.sft2}`
                    yield f"{path}.{key}"


def override_keys(cfg: DictConfig) -> list[str]:
    """Return every key that the command line may override."""
    return [f"{path}.{key}".lstrip(".") for path, node in _nodes(cfg) for key in node]


def _nodes(cfg: DictConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield all mappings of a configuration with their keys, interpolations as they are written."""
    yield from _mappings("", OmegaConf.to_container(cfg, resolve=False))


def _mappings(path: str, value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        yield path, value
        for key, inner in value.items():
            yield from _mappings(f"{path}.{key}".lstrip("."), inner)


def _advice(message: str, job: list[str]) -> str:
    """Return Hydra's message in one line, with the nearest valid override or option."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if lines[0].endswith("while composing config:"):  # and what was raised stands below
        lines[:2] = [" ".join(lines[:2])]
    missing = re.match(r"(?:In '.*': )?Could not find '(.*)/(.*)'", message)
    if missing:
        group, option = missing.groups()
        return f"{lines[0]} {nearest(option, conf_folders.options(group))}"
    longest_first = sorted(job, key=lambda word: -len(word.partition("=")[0]))
    for word in longest_first:
        if word[:1] not in "+~" and lines[0].startswith("Could not override"):
            advice = _mapping_advice(word)
            if advice and f"'{word.partition('=')[0]}'" in lines[0]:
                return advice
    for word in longest_first:  # `data` stands in a message about data.select, too
        key, _, value = word.lstrip("+~").partition("=")
        if lines[0].startswith("Config group override must be"):
            if conf_folders.is_group(key) and (value in ("null", "") or value.isdecimal()):
                advice = nearest("", conf_folders.options(key))
                return f"{word}: {key} takes the name of an option; {advice}"
        elif key in message:
            groups = _groups()
            chosen = [other for other in job if other.partition("=")[0] in groups and other != word]
            known = [*override_keys(compose_job(chosen)), *groups]
            near = [] if key in known else get_close_matches(key, known, 1, 0.5)
            return lines[0] + (f" Did you mean {near[0]}?" if near else "")
    return lines[0]


def _mapping_advice(word: str) -> str:
    """Return how entries of a mapping are set, for an override by a mapping; else ""."""
    key, _, value = word.partition("=")
    if not value.startswith("{"):
        return ""
    group = key.partition(".")[0]
    own = ""
    if conf_folders.is_group(group):
        own = f", and {group}/NAME.yaml in a folder of yours (--config-dir) replaces them all"
    return (
        f"{word}: {key} has other entries, and this would add to them; say so by +{key}={{...}}; "
        f"~{key}.NAME takes one out{own}"
    )


def _check_empty_mappings(cfg: DictConfig, job: list[str]) -> None:
    """Check that no mapping is overridden by an empty one, which would change nothing."""
    for override in OverridesParser.create().parse_overrides(job):
        key = override.key_or_group
        if override.value() == {} and not override.is_delete():
            entries = OmegaConf.select(cfg, key)
            if isinstance(entries, DictConfig) and len(entries):
                names = ", ".join(map(str, entries))
                raise ValueError(
                    f"{key}={{}}: an empty mapping changes nothing of {names}; take entries out by "
                    f"~{key}.NAME"
                )


def _groups() -> list[str]:
    return [*conf_folders.groups(), "chain@target", "chain@draft"]
