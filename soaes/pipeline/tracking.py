"""Mirror stages and jobs to Weights & Biases.

The store is the truth: nothing is read back from W&B, and no failure of W&B fails a stage.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from soaes.pipeline import private_api
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.runtime import LoggerSettings, Runtime, first_rank
from soaes.pipeline.store import read_json

# A training stage logs every (steps // CURVE_POINTS)th step: 100 to 199 points, or one a step.
CURVE_POINTS = 100


class WandbRun:
    """One W&B run, or none where the logger is disabled.

    The first call that fails is reported and ends the mirroring, not the stage.
    """

    def __init__(self, logger: LoggerSettings, **description: Any) -> None:
        """Start the run.

        Args:
            logger: Where it is recorded.
            **description: What `wandb.init` takes: id, name, group, job_type, config.
        """
        self.run: Any = None
        if logger.enabled:
            self.run = self._try(lambda: _start_run(logger, description))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Record the values of one step."""
        self._try(lambda: self.run and self.run.log(values, step=step))

    def summarise(self, metrics: Mapping[str, Any], *files: Path) -> None:
        """Record final metrics and upload files."""
        for file in files:
            self._try(partial(self._save, file))
        self._try(lambda: self.run and self.run.summary.update(metrics))

    def finish(self, exit_code: int = 0) -> None:
        """End the run; a non-zero exit code marks it as failed."""
        self._try(lambda: self.run and self.run.finish(exit_code=exit_code))

    def _save(self, file: Path) -> None:
        if self.run:
            self.run.save(str(file), base_path=str(file.parent), policy="now")

    def _try(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        # W&B raises whatever it meets: a full disk, a folder that cannot be written, its own errors
        except Exception as error:
            message = f"W&B: {type(error).__name__}: {error}; continuing without it"
            print(message, file=sys.stderr)
            self.run = None


class Tracker:
    """Receive the curves of a stage: a line a step in curves.jsonl, and the same in its W&B run.

    Attributes:
        path: The file curves.jsonl.
        mirror: The stage's W&B run, where there is one.
        earlier_seconds: Duration of the earlier attempts that the stage resumes.
    """

    def __init__(self, path: Path, mirror: WandbRun | None = None) -> None:
        self.path = path
        self.mirror = mirror
        self.earlier_seconds = 0.0

    def restore(self, lines: str, seconds: float) -> None:
        """Begin with the curves of an earlier attempt.

        W&B receives them too: its run of this name starts anew.

        Args:
            lines: The content of the earlier curves.jsonl.
            seconds: Duration of all earlier attempts.
        """
        self.path.write_text("", encoding="utf-8")
        self.earlier_seconds = seconds
        for line in lines.splitlines():
            values = json.loads(line)
            step = values.pop("step")
            self.log(values, step)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Record the values of one step."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self.mirror is not None:
            self.mirror.log(values, step)


@contextmanager
def track_stage(recipe: Recipe, runtime: Runtime, out: Path) -> Iterator[Tracker | None]:
    """Give a stage its tracker, and mirror the stage as one W&B run.

    The run's config is the written recipe (own values, parents by name), its summary the stage's
    metrics, and the recipe is attached as a file. Of several ranks the first one records; every
    other gets None.
    """
    if not first_rank():
        yield None
        return
    mirror = WandbRun(
        runtime.logger,
        id=recipe.name,
        name=recipe.name,
        job_type=recipe.stage,
        config=recipe.written,
    )
    try:
        yield Tracker(out / "curves.jsonl", mirror)
    except BaseException:
        mirror.finish(exit_code=1)
        raise
    path = out / "metrics.json"
    metrics = read_json(path) if path.exists() else {}
    mirror.summarise(metrics, out / "recipe.yaml")
    mirror.finish()


def track_job(
    name: str,
    experiment: str,
    overrides: dict[str, str],
    recipe: Recipe,
    metrics: dict[str, Any],
    logger: LoggerSettings,
) -> None:
    """Record a job as one W&B run, also when every stage of it was cached.

    Its config is the overrides and the names of all stages it needs; its summary is the metrics.

    Args:
        name: The id of the run.
        experiment: The group of the run.
        overrides: What the job sets, key -> value.
        recipe: The goal of the job.
        metrics: The metrics of the goal.
        logger: Where the run is recorded.
    """
    words = " ".join(f"{key}={value}" for key, value in overrides.items())
    mirror = WandbRun(
        logger,
        id=name,
        name=words or recipe.name,
        group=experiment,
        job_type="row",
        config={**overrides, "stages": sorted(recipe.ancestry())},
    )
    mirror.summarise(metrics)
    mirror.finish()


def _start_run(logger: LoggerSettings, description: dict[str, Any]) -> Any:
    os.environ.update(WANDB_SILENT="true", WANDB_CONSOLE="off")
    import wandb  # here, so that a cached sweep without new jobs never pays for it

    assert logger.folder is not None, "LoggerSettings checks it"
    Path(logger.folder).mkdir(parents=True, exist_ok=True)
    return wandb.init(
        project=logger.project,
        mode=logger.mode,
        dir=logger.folder,
        settings=private_api.wandb_settings(),
        **description,
    )
