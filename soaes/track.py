"""Mirror stages and rows to Weights & Biases. The store is the truth: nothing is read back, nothing here may fail a stage."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from soaes.recipe import Recipe


class Tracker:
    """Receives a stage's curves: one line a step in curves.jsonl, and the same values in the stage's W&B run."""

    def __init__(self, path: Path, run: Any = None) -> None:
        self.path, self.run = path, run

    def log(self, values: dict[str, float], step: int) -> None:
        with open(self.path, "a") as handle:
            handle.write(json.dumps({"step": step, **values}) + "\n")
        if self.run is not None:
            self.run.log(values, step=step)


@contextmanager
def stage(recipe: Recipe, runtime: dict[str, Any], out: Path) -> Iterator[Tracker | None]:
    """A run per stage: config = its own scalars and its parents' names; summary = its metrics; the recipe as a file."""
    about = {"id": recipe.name, "name": recipe.name, "job_type": recipe.stage, "config": recipe.written}
    run = _start(runtime, **about) if first_rank() else None
    try:
        yield Tracker(out / "curves.jsonl", run) if first_rank() else None
        if run is not None:
            run.save(str(out / "recipe.yaml"), base_path=str(out), policy="now")
            run.summary.update(_metrics(out))
    finally:
        if run is not None:
            run.finish()


def first_rank() -> bool:
    """One of a stage's ranks speaks for all: torchrun numbers them, a stage of one process is its own first."""
    return os.environ.get("RANK", "0") == "0"


def row(name: str, experiment: str, overrides: dict[str, str], recipe: Recipe, metrics: dict[str, Any], runtime: dict[str, Any]) -> None:
    """A run per row, also when every stage was cached: config = the overrides, summary = metrics, links to its stage runs."""
    config = {**overrides, "stages": sorted(recipe.ancestry())}
    words = " ".join(f"{key}={value}" for key, value in overrides.items())
    run = _start(runtime, id=name, name=words or recipe.name, group=experiment, job_type="row", config=config)
    if run is not None:
        run.summary.update(metrics)
        run.finish()


def _start(runtime: dict[str, Any], **about: Any) -> Any:
    logger = runtime["logger"]
    if logger["mode"] == "disabled":
        return None
    os.environ.update(WANDB_SILENT="true", WANDB_CONSOLE="off")
    import wandb  # late: a cached sweep without new rows never pays for it

    Path(logger["folder"]).mkdir(parents=True, exist_ok=True)
    settings = wandb.Settings(x_disable_stats=True, x_disable_meta=True, disable_git=True, disable_code=True, console="off")
    return wandb.init(project=logger["project"], mode=logger["mode"], dir=logger["folder"], settings=settings, **about)


def _metrics(out: Path) -> dict[str, Any]:
    path = out / "metrics.json"
    return json.loads(path.read_text()) if path.exists() else {}
