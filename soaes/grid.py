"""Compose the rows of a grid: what Hydra would launch for a command line, each row as a recipe, before anything is built.

A composition takes Hydra a third of a second. A recipe is a pure function of conf/, the command line and the data's digest, so
rows are kept under the digest of these three, and a cached sweep composes nothing."""

from __future__ import annotations

import copy
import fnmatch
import functools
import hashlib
import json
import os
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from soaes import limits, lineage
from soaes.backends.environment import BACKENDS, library
from soaes.data.sources import digest
from soaes.recipe import Recipe, revive
from soaes.worker import machine

CONF = Path(__file__).parent.parent / "conf"


def _cache(arguments: list[str]) -> Path:
    """Beside the store that the command line names."""
    given = [word.split("=", 1)[1] for word in arguments if word.startswith("runtime.store=")]
    return Path((given or [os.environ.get("SOAES_STORE", "store")])[-1]) / ".cache"


def data_digest(root: str) -> str:
    """What a folder of the user's own enters a recipe as."""
    if not Path(root).is_dir():
        raise ValueError(f"data.root={root}: there is no such folder; README says what it may hold")
    return digest(root, _cache([]))


OmegaConf.register_new_resolver("digest", data_digest, replace=True)
OmegaConf.register_new_resolver("pid", os.getpid, replace=True)
OmegaConf.register_new_resolver("library", library, replace=True)
OmegaConf.register_new_resolver("machine", lambda device: machine(device), replace=True)


@dataclass(frozen=True)
class Row:
    """One Hydra job: the overrides that tell it from the other rows of its grid, and the goal that it builds."""

    experiment: str
    overrides: dict[str, str]
    recipe: Recipe
    runtime: dict[str, Any]

    @property
    def name(self) -> str:
        """Also the id of the row's W&B run."""
        text = json.dumps([self.experiment, self.overrides, self.recipe.name])
        return f"row-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def words(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.overrides.items()) or "(one row)"


def rows(arguments: list[str]) -> list[Row]:
    """Every row of the grid that a command line asks for.

    ValueError, with the nearest valid name, for the first thing that is misspelt, missing or out of its range."""
    cache = _cache(arguments) / "rows" / f"{_key(arguments)}.json"
    try:
        kept = json.loads(cache.read_text())
        if all(data_digest(root) == told for root, told in kept["roots"].items()):
            return _revived(kept)
    except (OSError, ValueError, KeyError):
        pass  # none yet, or one that was cut short: the rows are composed again
    found = [_row(arguments, swept, job) for swept, job in jobs(arguments)]
    _keep(cache, json.dumps(_written(found), ensure_ascii=False))
    return found


def _keep(path: Path, text: str) -> None:
    """Written whole or not at all; a cache that cannot be written is done without."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(text)
        os.replace(unfinished, path)
    except OSError:
        pass


def jobs(arguments: list[str]) -> list[tuple[dict[str, str], list[str]]]:
    """A grid's jobs as Hydra's basic sweeper makes them: (what is swept, all overrides of the job)."""
    try:
        given = OverridesParser.create().parse_overrides([*_params(arguments), *arguments])
    except HydraException as error:
        said = str(error).splitlines()[0].partition(": ")[2] or str(error).splitlines()[0]
        raise ValueError(f"{said}: not an override; it reads key=value, and text beyond letters and digits takes quotes: 'key=\"值\"'") from None
    last = {override.get_key_element(): override for override in given}  # a later word for a key replaces an earlier one
    swept = [key for key in last if last[key].is_sweep_override() or key in dict(param.split("=", 1) for param in _params(arguments))]
    (batch,) = BasicSweeper.split_arguments(list(last.values()), max_batch_size=None)
    return [({key: dict(word.split("=", 1) for word in job)[key] for key in swept}, job) for job in batch]


def _params(arguments: list[str]) -> list[str]:
    """The sweep that the experiment file brings along, as overrides."""
    name = experiment(arguments)
    path = CONF / "experiment" / f"{name}.yaml"
    if name and not path.exists():
        raise ValueError(f"experiment={name}: there is none; {nearest(name, [file.stem for file in path.parent.glob('*.yaml')])}")
    params = OmegaConf.select(OmegaConf.load(path), "hydra.sweeper.params") if name else None
    return [f"{key}={value}" for key, value in (params or {}).items()]


def experiments(words: list[str]) -> list[str]:
    """The grids that a command line names, `experiment=a,b` or `experiment=table*`, or one without a name."""
    known = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
    return [match for name in experiment(words).split(",") for match in fnmatch.filter(known, name) or [name]]


def experiment(arguments: list[str]) -> str:
    return next((word.split("=", 1)[1] for word in arguments if word.lstrip("+").startswith("experiment=")), "")


def choice(arguments: list[str], group: str) -> str:
    """The option of a config group that a command line chooses: the last word for it, else run.yaml's."""
    given = [word.split("=", 1)[1] for word in arguments if word.startswith(f"{group}=")]
    defaults = OmegaConf.load(CONF / "run.yaml").defaults
    return given[-1] if given else next(entry[group] for entry in defaults if isinstance(entry, DictConfig) and group in entry)


def _row(arguments: list[str], swept: dict[str, str], job: list[str]) -> Row:
    cfg = composed(job)
    recipe = lineage.recipe(cfg, cfg.goal)
    for ancestor in recipe.ancestry().values():
        _check(ancestor.written)
        if ancestor.stage == "distill":
            _check_signal(**ancestor.arguments)
        if ancestor.target == "soaes.stages.teach_vllm.teach":
            format = ancestor.arguments["format"]
            limits.vllm_tells(format["_target_"].rpartition(".")[2].lower(), format)
    how = runtime(cfg)
    _check(how)
    return Row(experiment(arguments), swept, recipe, how)


def _check(plain: dict[str, Any]) -> None:
    """Every value in its range, every `_target_` ours."""
    for key, value in lineage.flat(plain).items():
        name = key.rpartition(".")[2]
        if name == "_target_":
            lineage.ours(value)
        limits.check(**{name: value})


def _check_signal(teacher: Recipe, tau: float, module: dict[str, Any], **others: Any) -> None:
    """What is kept of a teacher must serve what its student asks for. How near it comes to the exact loss is known once it is stored."""
    limits.serves(teacher.arguments["format"], tau, module.get("divergence", "forward"))


def composed(job: list[str]) -> DictConfig:
    """A job as Hydra composes it. Which options are chosen makes most of the work, once for all jobs that differ in values alone."""
    try:
        words = OverridesParser.create().parse_overrides(job)
        options = [word for word in words if (CONF / word.key_or_group).is_dir()]
        values = [word for word in words if word not in options]
        if not all(word.type is OverrideType.CHANGE and word.package is None for word in values):
            return copy.deepcopy(_composed(*job))  # added, deleted or misplaced: the order of words counts
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


def runtime(cfg: DictConfig) -> dict[str, Any]:
    """How stages are run, as plain values: conf/runtime, the logger, and where the data lies."""
    plain = OmegaConf.to_container(cfg.runtime, resolve=True)
    return {**plain, "logger": OmegaConf.to_container(cfg.logger, resolve=True), "root": cfg.data.get("root"), "dry": cfg.dry}


def _advice(message: str, job: list[str]) -> str:
    """Hydra's message in one line, with the nearest valid override or option."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    lost = re.match(r"(?:In '.*': )?Could not find '(.*)/(.*)'", message)
    if lost:
        return f"{lines[0]} {nearest(lost[2], [path.stem for path in (CONF / lost[1]).glob('*.yaml')])}"
    for word in (word.lstrip("+~").split("=", 1)[0] for word in job):
        if word in message:
            return f"{lines[0]} {nearest(word, [*lineage.keys(composed([])), *_groups()])}"
    return lines[0]


def _groups() -> list[str]:
    return [path.name for path in CONF.iterdir() if path.is_dir()] + ["chain@target", "chain@draft"]


def nearest(word: str, known: list[str]) -> str:
    near = get_close_matches(word, known, 1, 0.5)
    return f"Did you mean {near[0]}?" if near else f"There are: {', '.join(sorted(known))}"


def _key(arguments: list[str]) -> str:
    """What the rows are a function of, besides the data: conf/, our own rules, the words, the machine and its libraries."""
    files = [*sorted(CONF.rglob("*.yaml")), Path(__file__), Path(lineage.__file__), Path(limits.__file__)]
    state = hashlib.sha256(b"".join(path.read_bytes() for path in files))
    state.update(json.dumps([arguments, str(_cache(arguments)), machine("cpu"), machine("cuda"), *map(library, BACKENDS)]).encode())
    return state.hexdigest()[:16]


def _written(found: list[Row]) -> dict[str, Any]:
    stages = {name: recipe.written for row in found for name, recipe in row.recipe.ancestry().items()}
    roots = {row.runtime["root"]: data_digest(row.runtime["root"]) for row in found if row.runtime["root"]}
    return {"roots": roots, "stages": stages, "rows": [[row.experiment, row.overrides, row.recipe.name, row.runtime] for row in found]}


def _revived(kept: dict[str, Any]) -> list[Row]:
    known = revive(kept["stages"])
    return [Row(name, overrides, known[goal], how) for name, overrides, goal, how in kept["rows"]]
