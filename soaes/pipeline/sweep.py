"""Compose the rows of a grid: what Hydra would launch for a command line, each row as a recipe, before anything is built.

A composition takes Hydra a third of a second. A recipe is a pure function of conf/, the command line and the data's digest, so
rows are kept under the digest of these three, and a cached sweep composes nothing."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from soaes.decode.backends.vllm_environment import BACKENDS, library
from soaes.pipeline import compose, labels, validation
from soaes.pipeline.compose import CONF, compose_job, nearest, runtime_settings
from soaes.pipeline.provenance import machine
from soaes.pipeline.recipe import Recipe, revive
from soaes.pipeline.resolvers import cache_folder, data_digest


@dataclass(frozen=True)
class Job:
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


def jobs(arguments: list[str]) -> list[Job]:
    """Every row of the grid that a command line asks for.

    ValueError, with the nearest valid name, for the first thing that is misspelt, missing or out of its range."""
    cache = cache_folder(arguments) / "rows" / f"{_key(arguments)}.json"
    try:
        kept = json.loads(cache.read_text())
        if all(data_digest(root) == told for root, told in kept["roots"].items()):
            return _revived(kept)
    except (OSError, ValueError, KeyError):
        pass  # none yet, or one that was cut short: the rows are composed again
    found = [_row(arguments, swept, job) for swept, job in combinations(arguments)]
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


def combinations(arguments: list[str]) -> list[tuple[dict[str, str], list[str]]]:
    """A grid's jobs as Hydra's basic sweeper makes them: (what is swept, all overrides of the job)."""
    try:
        given = OverridesParser.create().parse_overrides([*_params(arguments), *arguments])
    except HydraException as error:
        said = str(error).splitlines()[0].partition(": ")[2] or str(error).splitlines()[0]
        raise ValueError(
            f"{said}: not an override; it reads key=value, and text beyond letters and digits takes quotes: 'key=\"值\"'"
        ) from None
    last = {
        override.get_key_element(): override for override in given
    }  # a later word for a key replaces an earlier one
    swept = [
        key
        for key in last
        if last[key].is_sweep_override()
        or key in dict(param.split("=", 1) for param in _params(arguments))
    ]
    (batch,) = BasicSweeper.split_arguments(list(last.values()), max_batch_size=None)
    return [
        ({key: dict(word.split("=", 1) for word in job)[key] for key in swept}, job)
        for job in batch
    ]


def _params(arguments: list[str]) -> list[str]:
    """The sweep that the experiment file brings along, as overrides."""
    name = experiment_of(arguments)
    path = CONF / "experiment" / f"{name}.yaml"
    if name and not path.exists():
        raise ValueError(
            f"experiment={name}: there is none; {nearest(name, [file.stem for file in path.parent.glob('*.yaml')])}"
        )
    params = OmegaConf.select(OmegaConf.load(path), "hydra.sweeper.params") if name else None
    return [f"{key}={value}" for key, value in (params or {}).items()]


def experiment_names(words: list[str]) -> list[str]:
    """The grids that a command line names, `experiment=a,b` or `experiment=table*`, or one without a name."""
    known = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
    return [
        match
        for name in experiment_of(words).split(",")
        for match in fnmatch.filter(known, name) or [name]
    ]


def experiment_of(arguments: list[str]) -> str:
    return next(
        (word.split("=", 1)[1] for word in arguments if word.lstrip("+").startswith("experiment=")),
        "",
    )


def _row(arguments: list[str], swept: dict[str, str], job: list[str]) -> Job:
    cfg = compose_job(job)
    recipe = compose.recipe_at(cfg, cfg.goal)
    for ancestor in recipe.ancestry().values():
        _check(ancestor.written)
        if ancestor.stage == "distill":
            _check_soft_targets(**ancestor.arguments)
        if ancestor.target == "soaes.stages.teach.teach_vllm":
            soft_targets = ancestor.arguments["soft_targets"]
            validation.check_vllm_supports(
                soft_targets["_target_"].rpartition(".")[2].lower(), soft_targets
            )
    how = runtime_settings(cfg)
    _check(how)
    return Job(experiment_of(arguments), swept, recipe, how)


def _check(plain: dict[str, Any]) -> None:
    """Every value in its range, every `_target_` ours."""
    for key, value in labels.flatten(plain).items():
        name = key.rpartition(".")[2]
        if name == "_target_":
            validation.check_target(value)
        validation.check(**{name: value})


def _check_soft_targets(
    teacher_logits: Recipe, tau: float, module: dict[str, Any], **others: Any
) -> None:
    """What is kept of a teacher must serve what its student asks for. How near it comes to the exact loss is known once it is stored."""
    validation.check_supports(
        teacher_logits.arguments["soft_targets"], tau, module.get("divergence", "forward")
    )


def _key(arguments: list[str]) -> str:
    """What the rows are a function of, besides the data: conf/, our own rules, the words, the machine and its libraries."""
    files = [*sorted(CONF.rglob("*.yaml")), *sorted(Path(__file__).parent.glob("*.py"))]
    state = hashlib.sha256(b"".join(path.read_bytes() for path in files))
    state.update(
        json.dumps(
            [
                arguments,
                str(cache_folder(arguments)),
                machine("cpu"),
                machine("cuda"),
                *map(library, BACKENDS),
            ]
        ).encode()
    )
    return state.hexdigest()[:16]


def _written(found: list[Job]) -> dict[str, Any]:
    stages = {
        name: recipe.written for row in found for name, recipe in row.recipe.ancestry().items()
    }
    roots = {
        row.runtime["root"]: data_digest(row.runtime["root"])
        for row in found
        if row.runtime["root"]
    }
    return {
        "roots": roots,
        "stages": stages,
        "rows": [[row.experiment, row.overrides, row.recipe.name, row.runtime] for row in found],
    }


def _revived(kept: dict[str, Any]) -> list[Job]:
    known = revive(kept["stages"])
    return [Job(name, overrides, known[goal], how) for name, overrides, goal, how in kept["rows"]]
