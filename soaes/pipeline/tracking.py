"""Mirror stages and rows to Weights & Biases. The store is the truth: nothing is read back, and no failure here fails a stage."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from soaes.pipeline import private_api
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.runtime import first_rank


class WandbRun:
    """One W&B run, or none: the first call that fails is reported and ends the mirroring, not the stage."""

    def __init__(self, runtime: dict[str, Any], **about: Any) -> None:
        self.run: Any = None
        if runtime["logger"]["mode"] != "disabled":
            self.run = self._try(lambda: _start(runtime["logger"], **about))

    def log(self, values: dict[str, float], step: int) -> None:
        self._try(lambda: self.run and self.run.log(values, step=step))

    def summarise(self, metrics: dict[str, Any], *files: Path) -> None:
        for file in files:
            self._try(
                lambda file=file: (
                    self.run and self.run.save(str(file), base_path=str(file.parent), policy="now")
                )
            )
        self._try(lambda: self.run and self.run.summary.update(metrics))

    def finish(self, exit_code: int = 0) -> None:
        self._try(lambda: self.run and self.run.finish(exit_code=exit_code))

    def _try(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:  # whatever W&B raises: a full disk, a folder that cannot be written, a version of its own
            print(f"W&B: {type(error).__name__}: {error}; going on without it", file=sys.stderr)
            self.run = None


class Tracker:
    """Receives a stage's curves: one line a step in curves.jsonl, and the same values in the stage's W&B run.

    State: the seconds of earlier attempts from which the stage goes on."""

    def __init__(self, path: Path, mirror: WandbRun | None = None) -> None:
        self.path, self.mirror, self.earlier = path, mirror, 0.0

    def take_up(self, lines: str, seconds: float) -> None:
        """Begin with the lines of an earlier attempt of so many seconds. W&B is told them too: its run of this name starts anew."""
        self.path.write_text("")
        self.earlier = seconds
        for line in lines.splitlines():
            values = json.loads(line)
            self.log(values, values.pop("step"))

    def log(self, values: dict[str, float], step: int) -> None:
        with open(self.path, "a") as handle:
            handle.write(json.dumps({"step": step, **values}) + "\n")
        if self.mirror is not None:
            self.mirror.log(values, step)


@contextmanager
def track_stage(recipe: Recipe, runtime: dict[str, Any], out: Path) -> Iterator[Tracker | None]:
    """A run per stage: config = its own scalars and its parents' names; summary = its metrics; the recipe as a file.

    Of several ranks the first one speaks for all; the others get None."""
    if not first_rank():
        yield None
        return
    mirror = WandbRun(
        runtime, id=recipe.name, name=recipe.name, job_type=recipe.stage, config=recipe.written
    )
    try:
        yield Tracker(out / "curves.jsonl", mirror)
    except BaseException:
        mirror.finish(exit_code=1)
        raise
    path = out / "metrics.json"
    mirror.summarise(json.loads(path.read_text()) if path.exists() else {}, out / "recipe.yaml")
    mirror.finish()


def track_job(
    name: str,
    experiment: str,
    overrides: dict[str, str],
    recipe: Recipe,
    metrics: dict[str, Any],
    runtime: dict[str, Any],
) -> None:
    """A run per row, also when every stage was cached: config = the overrides, summary = metrics, links to its stage runs."""
    words = " ".join(f"{key}={value}" for key, value in overrides.items()) or recipe.name
    mirror = WandbRun(
        runtime,
        id=name,
        name=words,
        group=experiment,
        job_type="row",
        config={**overrides, "stages": sorted(recipe.ancestry())},
    )
    mirror.summarise(metrics)
    mirror.finish()


def _start(logger: dict[str, Any], **about: Any) -> Any:
    os.environ.update(WANDB_SILENT="true", WANDB_CONSOLE="off")
    import wandb  # late: a cached sweep without new rows never pays for it

    Path(logger["folder"]).mkdir(parents=True, exist_ok=True)
    return wandb.init(
        project=logger["project"],
        mode=logger["mode"],
        dir=logger["folder"],
        settings=private_api.wandb_settings(),
        **about,
    )
