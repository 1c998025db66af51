"""Compose the jobs of a sweep: what a command line asks for, each job as a recipe, all checked.

Nothing is built before every job is composed and checked, so a slip costs nothing. A composition
takes Hydra a third of a second; the jobs of a command line are therefore cached beside the store.
They are a function of conf/, the pipeline's own code, the words, the user's data, the machine and
its libraries, and the cache's key covers all of these.
"""

from __future__ import annotations

import fnmatch
import hashlib
import importlib
import inspect
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf

from soaes.data.settings import PackingSettings
from soaes.decode.backends.vllm_environment import BACKENDS, library
from soaes.decode.settings import DecoderSettings, SamplingSettings
from soaes.model.settings import (
    OptimizerSettings,
    ProbeSettings,
    SoftTargets,
    ValidationSettings,
    check_vllm_supports,
)
from soaes.pipeline import compose, labels, validation
from soaes.pipeline.compose import CONF, compose_job, nearest, runtime_settings
from soaes.pipeline.provenance import machine
from soaes.pipeline.recipe import Recipe, declared_name, revive
from soaes.pipeline.resolvers import cache_folder, data_digest
from soaes.pipeline.runtime import Runtime
from soaes.pipeline.store import read_json, write_json


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

    config: str
    """The composed configuration as YAML, interpolations as they are written."""

    @property
    def name(self) -> str:
        """The job's identity, also the id of its W&B run."""
        text = json.dumps([self.experiment, self.overrides, self.recipe.name])
        return f"row-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

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
    composed = [_job(arguments, swept, job) for swept, job in combinations(arguments)]
    _write_cache(cache, composed)
    return composed


def _job(arguments: list[str], swept: dict[str, str], job: list[str]) -> Job:
    cfg = compose_job(job)
    recipe = compose.recipe_at(cfg, cfg.goal)
    for ancestor in recipe.ancestry().values():
        check_recipe(ancestor)
    runtime = runtime_settings(cfg)
    return Job(experiment_of(arguments), swept, job, recipe, runtime, OmegaConf.to_yaml(cfg))


# ------------------------------------------------------------------------------- enumeration


def combinations(arguments: list[str]) -> list[tuple[dict[str, str], list[str]]]:
    """Enumerate a sweep's jobs in the order of Hydra's basic sweeper.

    Returns:
        For each job its swept keys with their values, and all its overrides.

    Raises:
        ValueError: A word is no override, or a sweep has no finite number of jobs.
    """
    params = _experiment_sweep(arguments)
    try:
        parsed = OverridesParser.create().parse_overrides([*params, *arguments])
        # A later word for a key replaces an earlier one, in the earlier one's place.
        last = {override.get_key_element(): override for override in parsed}
    except HydraException as error:
        first_line = str(error).splitlines()[0]
        reason = first_line.partition(": ")[2] or first_line
        raise ValueError(
            f"{reason}: not an override; it reads key=value, and text beyond letters and digits "
            "takes quotes: 'key=\"值\"'"
        ) from None
    choices = {key: _values(override) for key, override in last.items()}
    from_experiment = {param.split("=", 1)[0] for param in params}
    swept_keys = [key for key in last if last[key].is_sweep_override() or key in from_experiment]
    jobs = []
    for values in itertools.product(*choices.values()):
        job = dict(zip(choices, values))
        swept = {key: job[key] for key in swept_keys}
        jobs.append((swept, [f"{key}={value}" for key, value in job.items()]))
    return jobs


def _values(override: Override) -> list[str]:
    """Return the values that an override takes in turn; one, if it is not swept."""
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    try:
        return [str(value) for value in override.sweep_string_iterator()]
    except HydraException:  # an interval, or a glob
        raise ValueError(
            f"{override.input_line}: its values cannot be listed; "
            "write them out, as in key=a,b or key=range(0,3)"
        ) from None


def _experiment_sweep(arguments: list[str]) -> list[str]:
    """Return the sweep that the experiment's file brings along, as overrides."""
    name = experiment_of(arguments)
    if not name:
        return []
    path = CONF / "experiment" / f"{name}.yaml"
    if not path.exists():
        raise ValueError(f"experiment={name}: there is none; {nearest(name, _experiments())}")
    params = OmegaConf.select(OmegaConf.load(path), "hydra.sweeper.params")
    return [f"{key}={value}" for key, value in (params or {}).items()]


def _experiments() -> list[str]:
    return sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


def experiment_names(words: list[str]) -> list[str]:
    """Return the experiments that a command line names, `a,b` or `table*`; one "" for none."""
    names: list[str] = []
    for pattern in experiment_of(words).split(","):
        names += fnmatch.filter(_experiments(), pattern) or [pattern]
    return names


def experiment_of(arguments: list[str]) -> str:
    """Return the value of `experiment=` among a command line's words, else ""."""
    for word in arguments:
        if word.lstrip("+").startswith("experiment="):
            return word.split("=", 1)[1]
    return ""


# ------------------------------------------------------------------------------------ checks


# The settings that a stage's argument of a name holds, whichever stage it is. No stage takes None
# for them: one that can do without has a default, and its node can be deleted.
SETTINGS: dict[str, tuple[type, ...]] = {
    "optim": (OptimizerSettings,),
    "packing": (PackingSettings,),
    "validation": (ValidationSettings,),
    "probe": (ProbeSettings,),
    "sampling": (SamplingSettings,),
    "decode": tuple(DecoderSettings.__subclasses__()),
    "soft_targets": get_args(SoftTargets),
}

# The settings that a stage has no default for.
NEEDED_SETTINGS: dict[str, tuple[str, ...]] = {
    "pack": ("packing",),
    "pretrain": ("optim",),
    "instruct": ("optim",),
    "cpt": ("optim",),
    "sft": ("optim",),
    "distill": ("optim",),
    "teach": ("soft_targets",),
    "teach_vllm": ("soft_targets",),
    "target_trace": ("sampling",),
    "acceptance": ("decode", "sampling"),
    "speed": ("decode", "sampling"),
}

# The arguments, of a stage or of settings, that hold a function or class of which some arguments
# are bound.
PARTIALS = ("module", "schedule", "backend")


def check_recipe(recipe: Recipe) -> None:
    """Check a stage's arguments and options, before anything is built.

    Raises:
        ValueError: A value is out of its range, a `_target_` is not the project's, or a node is
            not what the stage's argument takes.
    """
    validation.check_stage(recipe.stage, recipe.arguments)
    _check_leaves(recipe.written, recipe.stage)
    _check_settings(recipe)
    if recipe.stage == "distill":
        stored = recipe.arguments["teacher_logits"].arguments["soft_targets"]
        divergence = recipe.arguments["module"].get("divergence", "forward")
        instantiate_settings(stored).check_supports(recipe.arguments["tau"], divergence)
    if recipe.stage == "teach_vllm":
        check_vllm_supports(instantiate_settings(recipe.arguments["soft_targets"]))


def _check_leaves(plain: dict[str, Any], stage: str) -> None:
    """Check that every `_target_` is ours, and the settings of modules and soft targets."""
    for key, value in labels.flatten(plain).items():
        name = key.rpartition(".")[2]
        if name == "_target_":
            validation.check_target(value)
        if name == "revision" and stage != "fetch":  # there it is a commit
            validation.check_revision(value)
        validation.check(**{name: value})


def _check_settings(recipe: Recipe) -> None:
    """Check that settings instantiate, and that each is of the class that its argument takes."""
    for name in NEEDED_SETTINGS.get(recipe.stage, ()):
        if name not in recipe.arguments:
            raise ValueError(
                f"{recipe.stage}: it needs {name}, which was deleted; set {name} again"
            )
    for name, value in instantiate_settings(recipe.arguments).items():
        classes = SETTINGS.get(name)
        if classes is not None and not isinstance(value, classes):
            written = _in_short(recipe.arguments[name])
            wanted = " or ".join(each.__name__ for each in classes)
            raise ValueError(
                f"{name}={written}: must be {wanted} (settings are known by their _target_); "
                f"keep the node of conf/{name} whole and change its values alone"
            )
    _check_partials(recipe.arguments)


def _check_partials(arguments: dict[str, Any]) -> None:
    """Check that functions and classes with bound arguments still name what they bind."""
    for name, value in arguments.items():
        if name not in PARTIALS:
            if isinstance(value, dict):
                _check_partials(value)
        elif not _is_partial(value):
            raise ValueError(
                f"{name}={_in_short(value)}: must have a _target_ and _partial_: true; "
                "keep its node of conf/ whole and change its values alone"
            )


def _is_partial(value: Any) -> bool:
    return isinstance(value, dict) and "_target_" in value and value.get("_partial_") is True


def _in_short(value: Any) -> str:
    """Return a node's value for an error: of a mapping its `_target_`, or that it has none."""
    if isinstance(value, dict):
        target = value.get("_target_")
        return f"{{_target_: {target}, ...}}" if target else "{...} without a _target_"
    return "null" if value is None else str(value)


def instantiate_settings(value: Any) -> Any:
    """Instantiate every settings node in a resolved value, innermost first.

    A settings node is one whose `_target_` lies in a module called `settings`: a frozen dataclass,
    free of torch, that checks itself when it is created. Parents, and options that are no settings,
    are passed on as they are.

    Raises:
        ValueError: The settings refuse a value, lack one, or know no argument of that name.
    """
    if isinstance(value, list):
        return [instantiate_settings(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    plain = {key: instantiate_settings(inner) for key, inner in value.items()}
    target = str(value.get("_target_", ""))
    module_name, _, class_name = target.rpartition(".")
    if declared_name(module_name) != "settings":
        return plain
    validation.check_target(target)
    settings = getattr(importlib.import_module(module_name), class_name, None)
    if settings is None:
        raise ValueError(f"_target_: {module_name} has no settings called {class_name}")
    known = list(inspect.signature(settings).parameters)
    arguments = {}
    for key, inner in plain.items():
        if key in known:
            arguments[key] = inner
        elif key not in ("_target_", "_partial_", "revision"):  # these are not passed on
            raise ValueError(f"{key}: {class_name} has no such setting; {nearest(key, known)}")
    for key, parameter in inspect.signature(settings).parameters.items():
        if parameter.default is parameter.empty and key not in arguments:
            raise ValueError(f"{class_name}: it needs {key}, which was deleted; set {key} again")
    return settings(**arguments)


# ------------------------------------------------------------------------------------- cache


def _cache_key(arguments: list[str]) -> str:
    """Digest everything that the jobs are a function of, except the user's data."""
    files = [*sorted(CONF.rglob("*.yaml")), *sorted(Path(__file__).parent.glob("*.py"))]
    files += sorted(Path(__file__).parent.parent.rglob("settings.py"))
    state = hashlib.sha256(b"".join(path.read_bytes() for path in files))
    libraries = [library(backend) for backend in BACKENDS]
    machines = [machine("cpu"), machine("cuda")]
    surroundings = [arguments, str(cache_folder(arguments)), *machines, *libraries]
    state.update(json.dumps(surroundings).encode())
    return state.hexdigest()[:16]


def _read_cache(path: Path) -> list[Job] | None:
    """Return the cached jobs; None if there are none, they are cut short or the data changed."""
    try:
        cached = read_json(path)
        if any(data_digest(root) != digest for root, digest in cached["roots"].items()):
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
    for job in jobs:
        for name, recipe in job.recipe.ancestry().items():
            stages[name] = recipe.written
        root = job.runtime.root
        if root:
            roots[root] = data_digest(root)
    written = [
        {**vars(job), "recipe": job.recipe.name, "runtime": job.runtime.to_plain()} for job in jobs
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"roots": roots, "stages": stages, "jobs": written})
    except OSError:
        pass
