"""Compose the jobs of a sweep: what a command line asks for, each job as a recipe, all checked.

Nothing is built before every job is composed and checked, so a slip costs nothing. A composition
takes Hydra a third of a second; the jobs of a command line are therefore cached beside the store.
They are a function of conf/, the pipeline's own code, the words, the user's data and models, the
machine and its libraries; all of these are compared.
"""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from soaes.decode.backends.vllm_environment import BACKENDS, is_installed, library, python
from soaes.pipeline import command_line, compose, conf_folders, reach
from soaes.pipeline.command_line import key_of, parse, values, without
from soaes.pipeline.compose import compose_job, runtime_settings
from soaes.pipeline.provenance import machine
from soaes.pipeline.recipe import Recipe, revive
from soaes.pipeline.recipe_checks import check_execution, check_questions, check_recipe
from soaes.pipeline.resolvers import cache_folder, data_digest, local_model
from soaes.pipeline.runtime import Runtime
from soaes.pipeline.store import read_json, write_json
from soaes.pipeline.validation import nearest


@dataclass(frozen=True)
class Job:
    """One job of a sweep: a row of a table."""

    experiment: str
    """The experiment (conf/experiment) that the job belongs to; empty without one."""

    overrides: dict[str, str]
    """The swept keys with this job's values: what tells it from the sweep's other jobs."""

    arguments: list[str]
    """All overrides of the job, as they are typed to run it alone."""

    recipe: Recipe
    """The goal that the job builds."""

    runtime: Runtime
    """How its stages are run."""

    idle: list[str]
    """Those of its overrides that reach neither the recipe nor the runtime."""

    @property
    def name(self) -> str:
        """The job's identity, also the id of its W&B run."""
        text = json.dumps([self.experiment, self.overrides, self.recipe.name])
        return f"row-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def config(self) -> str:
        """Compose the configuration again, as YAML with interpolations as they are written."""
        return OmegaConf.to_yaml(compose_job(self.arguments))

    @property
    def words(self) -> str:
        """The swept overrides in one line, for the terminal."""
        words = [f"{key}={value}" for key, value in self.overrides.items()]
        return " ".join(words) or "(one row)"


def jobs(arguments: list[str]) -> list[Job]:
    """Return every job of the sweep that a command line asks for, composed and checked.

    Args:
        arguments: Overrides, of which any may be swept: `["experiment=table2", "seed=0,1"]`.

    Raises:
        ValueError: Something is misspelt, missing or out of its range. The message names the value
            and the way out, or the nearest valid name.
    """
    cache = cache_folder(arguments) / "rows" / f"{_cache_key(arguments)}.json"
    cached = _read_cache(cache)
    if cached is not None:
        return cached
    composed = compose_jobs(arguments)
    _write_cache(cache, composed)
    return composed


def compose_jobs(arguments: list[str]) -> list[Job]:
    """Return the same as `jobs`, composed anew; neither reads nor writes the cache."""
    return [_job(arguments, swept, job) for swept, job in combinations(arguments)]


def _job(arguments: list[str], swept: dict[str, str], job: list[str]) -> Job:
    cfg = compose_job(job)
    recipe = compose.recipe_at(cfg, OmegaConf.select(cfg, "goal"))
    for ancestor in recipe.ancestry().values():
        check_recipe(ancestor)
    runtime = runtime_settings(cfg)
    for ancestor in recipe.ancestry().values():
        check_questions(ancestor, runtime.root)
        check_execution(ancestor, runtime)
    idle = reach.idle_overrides(cfg, job)
    return Job(experiment_of(arguments), swept, job, recipe, runtime, idle)


def check_overrides(jobs: list[Job]) -> list[str]:
    """Check that every override changes something: a row must be the one that was asked for.

    Args:
        jobs: All jobs of a command line.

    Returns:
        Remarks: of a command line with `experiment=`, the overrides that reach none of its jobs.
        They may be a set that is given to every experiment.

    Raises:
        ValueError: A swept key makes equal rows, or an override reaches no job of a goal that was
            chosen by hand.
    """
    remarks = []
    for job in jobs:
        for word in job.idle:
            key = key_of(parse([word])[0])
            everywhere = all(word in other.idle for other in jobs)
            if key not in job.overrides and not everywhere:
                continue
            cfg = compose_job(job.arguments)
            message = f"{word}: it changes nothing of goal={cfg.goal} subject={cfg.subject}; "
            message += reach.advice(cfg, word)
            if key in job.overrides or not job.experiment:
                raise ValueError(message)
            remarks.append(message)
    return sorted(set(remarks))


# ------------------------------------------------------------------------------- enumeration


def combinations(arguments: list[str]) -> list[tuple[dict[str, str], list[str]]]:
    """Enumerate a sweep's jobs in the order of Hydra's basic sweeper.

    Returns:
        For each job its swept keys with their values, and all its overrides.

    Raises:
        ValueError: A word is no override, or a sweep has no finite number of jobs.
    """
    params = _experiment_sweep(arguments)
    # A later word for a key replaces an earlier one, in the earlier one's place.
    last = {given.get_key_element(): given for given in parse([*params, *arguments])}
    words_of_keys = [_words(override) for override in last.values()]
    of_experiment = {key_of(override) for override in parse(params)}
    swept_places = [
        place
        for place, override in enumerate(last.values())
        if override.is_sweep_override() or key_of(override) in of_experiment
    ]
    keys = [key_of(override) for override in last.values()]
    jobs = []
    for chosen in itertools.product(*words_of_keys):
        swept = {keys[place]: chosen[place].partition("=")[2] for place in swept_places}
        jobs.append((swept, list(chosen)))
    return jobs


def _words(override: Override) -> list[str]:
    """Return the words that an override stands for: one for each of its values."""
    if override.is_delete():
        return [str(override.input_line)]
    key = override.get_key_element()
    options = conf_folders.options(override.key_or_group)
    return [f"{key}={value}" for value in values(override, options)]


def _experiment_sweep(arguments: list[str]) -> list[str]:
    """Return the sweep that the experiment's file brings along, as overrides."""
    name = experiment_of(arguments)
    if not name:
        return []
    path = conf_folders.option_file("experiment", name)
    if path is None:
        advice = nearest(name, conf_folders.options("experiment"))
        raise ValueError(f"experiment={name}: there is none; {advice}")
    params = OmegaConf.select(OmegaConf.load(path), "hydra.sweeper.params")
    return [f"{key}={value}" for key, value in (params or {}).items()]


def sweeps_of(words: list[str]) -> list[list[str]]:
    """Split a command line into its sweeps, one for each experiment that it names.

    Hydra would merge the files of several experiments into one and ignore their sweeps.

    Args:
        words: Overrides; `experiment=` may list several, `a,b`, or match them, `table*`.

    Raises:
        ValueError: A word is no override, or `experiment=` is given twice.
    """
    named = [override for override in parse(words) if key_of(override) == "experiment"]
    if len(named) > 1:
        given = " ".join(str(override.input_line) for override in named)
        joined = ",".join(value for override in named for value in values(override))
        raise ValueError(f"{given}: give experiment= once, as experiment={joined}")
    if not named or named[0].value() is None:
        return [words]
    others = without(words, "experiment")
    experiments = conf_folders.options("experiment")
    names: list[str] = []
    for pattern in values(named[0], experiments):
        names += fnmatch.filter(experiments, pattern) or [pattern]
    return [[f"experiment={name}", *others] for name in dict.fromkeys(names)]


def experiment_of(arguments: list[str]) -> str:
    """Return the one experiment that a sweep is of, else the empty string."""
    return command_line.value(arguments, "experiment") or ""


# ------------------------------------------------------------------------------------- cache


def _cache_key(arguments: list[str]) -> str:
    """Digest everything that the jobs are a function of, except the user's data and models."""
    conf = conf_folders.content()
    files: list[Path] = []
    for folder in ("pipeline", "data", "decode", "model", "stages"):  # what jobs are checked by
        files += sorted((Path(__file__).parent.parent / folder).rglob("*.py"))
    state = hashlib.sha256(conf + b"".join(path.read_bytes() for path in files))
    libraries = [library(backend) for backend in BACKENDS]
    machines = [machine("cpu"), machine("cuda")]
    names = sorted(set(re.findall(r"oc\.env:(\w+)", conf.decode(errors="replace"))))
    variables = {name: os.environ.get(name) for name in names}
    folders = [str(cache_folder(arguments)), str(python())]
    surroundings = [arguments, *folders, *machines, *libraries, is_installed(), variables]
    state.update(json.dumps(surroundings).encode())
    return state.hexdigest()[:16]


def _read_cache(path: Path) -> list[Job] | None:
    """Return the cached jobs.

    None if there are none, they are cut short, or the data or a model of the user's changed.
    """
    try:
        cached = read_json(path)
        if any(data_digest(root) != digest for root, digest in cached["roots"].items()):
            return None
        for model, digest in cached["models"].items():
            if local_model(model)["digest"] != digest:
                return None
        recipes = revive(cached["stages"])
        return [_revived_job(job, recipes) for job in cached["jobs"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _revived_job(written: dict[str, Any], recipes: dict[str, Recipe]) -> Job:
    recipe = recipes[written["recipe"]]
    return Job(**{**written, "recipe": recipe, "runtime": Runtime.from_plain(written["runtime"])})


def _write_cache(path: Path, jobs: list[Job]) -> None:
    """Write composed jobs for the next time; do without where the store cannot be written."""
    stages: dict[str, dict[str, Any]] = {}
    roots: dict[str, str] = {}
    models: dict[str, str] = {}
    for job in jobs:
        for name, recipe in job.recipe.ancestry().items():
            stages[name] = recipe.written
        root = job.runtime.root
        if root:
            roots[root] = data_digest(root)
        models |= {folder: digest for digest, folder in job.runtime.models.items()}
    written = [
        {**vars(job), "recipe": job.recipe.name, "runtime": job.runtime.to_plain()} for job in jobs
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        cached = {"roots": roots, "models": models, "stages": stages, "jobs": written}
        write_json(path, cached)
    except OSError:
        pass
