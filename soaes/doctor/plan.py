"""The command line that the doctor judges for: its jobs, and which stages they would run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from soaes.pipeline import conf_folders, dry_run, sweep
from soaes.pipeline.compose import compose_job, runtime_settings
from soaes.pipeline.dry_run import Estimate
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.runtime import Runtime
from soaes.pipeline.scheduler import missing
from soaes.pipeline.store import Store
from soaes.pipeline.sweep import Job


@dataclass(frozen=True)
class Plan:
    """What a command line asks for."""

    jobs: list[Job]
    store: Store

    @property
    def runtime(self) -> Runtime:
        """How its stages are run; all jobs have the same."""
        return self.jobs[0].runtime

    @property
    def recipes(self) -> list[Recipe]:
        """The goals."""
        return [job.recipe for job in self.jobs]

    @cached_property
    def stages(self) -> dict[str, Recipe]:
        """All stages behind the goals, by name."""
        stages: dict[str, Recipe] = {}
        for recipe in self.recipes:
            stages.update(recipe.ancestry())
        return stages

    @cached_property
    def todo(self) -> dict[str, Recipe]:
        """The stages to run, by name."""
        return missing(self.store, self.recipes)

    @cached_property
    def estimate(self) -> Estimate:
        """What running them is expected to need."""
        return dry_run.estimate(self.store, self.todo)


def compose(words: list[str], store: Store, config_dir: str | None = None) -> Plan:
    """Compose every job of a command line, and check it as soaes.run does.

    Nothing is written where there is no store: its name may be misspelt.

    Args:
        words: The overrides.
        store: The store that they name.
        config_dir: The user's folder beside conf/, if there is one.

    Raises:
        ValueError: Something is misspelt, missing or out of its range.
    """
    conf_folders.use(config_dir)
    composed = sweep.jobs if store.root.is_dir() else sweep.compose_jobs
    return Plan([job for line in sweep.sweeps_of(words) for job in composed(line)], store)


def compose_runtime(words: list[str]) -> Runtime:
    """Compose how the first job of a command line is run, and not what it builds.

    Raises:
        ValueError: Something is misspelt, missing or out of its range.
    """
    _, arguments = sweep.combinations(sweep.sweeps_of(words)[0])[0]
    return runtime_settings(compose_job(arguments))
