"""Mirror stages and what is made of them to Weights & Biases.

The store is the truth: nothing is read back from W&B, and no failure of W&B fails a stage.

W&B makes a panel of each logged metric, and a section of those with one prefix. `train/` and `val/`
are the curves of training stages; of what is recorded when it is over (a row of a table), a metric
has its stage's name as prefix. docs/tracking.md shows what a person finds there.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from soaes.pipeline import labels, lineage, private_api
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.runtime import LoggerSettings, Runtime, first_rank
from soaes.pipeline.store import read_json, write_json

# A training stage logs every (steps // CURVE_POINTS)th step: 100 to 199 points, or one a step.
CURVE_POINTS = 100

# What the summary of a run keeps of a curve, by W&B's words; of any other curve, its last value.
CURVE_SUMMARIES = {
    "val/perplexity": "last,min",
    "val/rouge1": "last,max",
    "train/tokens_per_s": "mean",
}
HIDDEN_CURVES = ("seconds",)  # an axis for the others, and no panel of its own

CURVES = "curves.jsonl"  # a line for each step that is recorded

# What a running stage says of its progress; removed when it is done.
PROGRESS = "progress.json"

# The settings that tell apart models of one chain, where a stage has them.
TELLING_SETTINGS = {"alpha": "alpha", "tau": "tau", "optim.lr": "lr"}

# The argument by which a stage reads the model that it measures.
MEASURED = ("model", "draft", "target")

MAX_NAME = 128  # characters of a run's or group's name


@dataclass(frozen=True)
class RunDescription:
    """What a W&B run is found by."""

    id: str
    """Its identity: a run of the same one takes its place."""

    name: str
    """What a person reads in the list of runs."""

    group: str
    """The runs that belong together, such as one recipe in several seeds."""

    job_type: str
    """What it records: a stage by its function's name, a `row`, a `report`."""

    tags: tuple[str, ...] = ()
    """By which it is found, beside those of `LoggerSettings`."""

    notes: str = ""
    """Markdown."""

    config: Mapping[str, Any] = field(default_factory=dict)
    """Settings, each a column of W&B's table of runs."""


class WandbRun:
    """One W&B run, or none where the logger is disabled.

    The first call that fails is reported and ends the mirroring, not the stage.
    """

    def __init__(self, logger: LoggerSettings, describe: Callable[[], RunDescription]) -> None:
        """Start the run.

        Args:
            logger: Where it is recorded.
            describe: Returns what it is found by; called if there is a run.
        """
        self.run: Any = None
        if logger.enabled:
            self.run = self._try(lambda: _start_run(logger, describe()))

    @property
    def is_live(self) -> bool:
        """Whether there is a run, and nothing that it was given has failed."""
        return self.run is not None

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Record the values of one step."""
        self._try(lambda: self.run and self.run.log(values, step=step))

    def define_curves(self) -> None:
        """Say what the summary keeps of each curve."""
        for name, summary in CURVE_SUMMARIES.items():
            self._try(partial(self._define, name, summary=summary))
        for name in HIDDEN_CURVES:
            self._try(partial(self._define, name, hidden=True))

    def summarise(self, metrics: Mapping[str, Any], *files: Path) -> None:
        """Record final metrics, and copies of files."""
        for file in files:
            self._try(partial(self._save, file))
        self._try(lambda: self.run and self.run.summary.update(metrics))

    def finish(self, exit_code: int = 0) -> None:
        """End the run; a non-zero exit code marks it as failed."""
        self._try(lambda: self.run and self.run.finish(exit_code=exit_code))

    def _define(self, name: str, **options: Any) -> None:
        if self.run:
            self.run.define_metric(name, **options)

    def _save(self, file: Path) -> None:
        """Put a copy of a file into the run's folder.

        Offline, W&B only links to a file elsewhere, and a stage's folder is renamed when it is
        complete: `wandb sync` would find nothing.
        """
        if self.run:
            copy = shutil.copy(file, self.run.dir)
            self.run.save(copy, base_path=self.run.dir, policy="end")

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

    def report_progress(self, share: float, note: str) -> None:
        """Tell whoever watches the build how far the stage is.

        Args:
            share: Of it that is done, in [0, 1].
            note: A few words, such as what it has cost so far.
        """
        write_json(self.path.with_name(PROGRESS), {"share": share, "note": note})

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Record the values of one step."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self.mirror is not None:
            self.mirror.log(values, step)


@contextmanager
def track_stage(recipe: Recipe, runtime: Runtime, out: Path) -> Iterator[Tracker | None]:
    """Give a stage its tracker, and mirror the stage as one W&B run.

    The run's summary is the stage's metrics, and the recipe is attached as a file. Of several ranks
    the first one records; every other gets None.
    """
    if not first_rank():
        yield None
        return
    mirror = WandbRun(runtime.logger, partial(describe_stage, recipe))
    mirror.define_curves()
    try:
        yield Tracker(out / CURVES, mirror)
    except BaseException:
        mirror.finish(exit_code=1)
        raise
    path = out / "metrics.json"
    metrics = in_section(recipe.stage, read_json(path)) if path.exists() else {}
    of_no_curve = {name: value for name, value in metrics.items() if name not in CURVE_SUMMARIES}
    mirror.summarise(of_no_curve, out / "recipe.yaml")
    mirror.finish()


def describe_stage(recipe: Recipe) -> RunDescription:
    """Say what the run of a stage is found by.

    A model is named by its chain and the settings that tell it from others of that chain; a stage
    that measures a model, by that model. Their group is the name without the seed: the same model
    in every seed, and all that is measured of it. Every other stage prepares data.

    The config is the written recipe: own values, parents by name.
    """
    model = model_of(recipe)
    name, group = recipe.name, "data"
    tags: tuple[str, ...] = ()
    if model is not None:
        group = name = name_model(model)
        if model is not recipe:
            name = f"{recipe.stage}: {name}"
        seed = _seed_of(model)
        if seed is not None:
            name = f"{name}, seed {seed}"
            tags = (f"seed {seed}",)
    return RunDescription(
        id=recipe.name,
        name=name,
        group=group,
        job_type=recipe.stage,
        tags=tags,
        notes=f"Folder `{recipe.name}` of the store.",
        config=recipe.written,
    )


def model_of(recipe: Recipe) -> Recipe | None:
    """Return the model that a stage makes, or else measures; None for one that prepares data."""
    if recipe.stage in labels.MODELS:
        return recipe
    parents = {path.rpartition(".")[2]: parent for path, parent in recipe.parents.items()}
    for role in MEASURED:
        if role in parents:
            return parents[role]
    return None


def name_model(model: Recipe) -> str:
    """Name a model by its chain: `Base 3x96 + CPT (lr 0.001)`."""
    settings = labels.own_arguments(model)
    words = [f"{word} {settings[key]}" for key, word in TELLING_SETTINGS.items() if key in settings]
    label = labels.label(model)
    return f"{label} ({', '.join(words)})" if words else label


def _seed_of(model: Recipe) -> int | None:
    """Return the seed of the last stage of a model's chain that has one."""
    seeds = [stage.arguments.get("seed") for stage in lineage.chain(model)]
    return next((seed for seed in reversed(seeds) if seed is not None), None)


def in_section(stage: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Put metrics without a section into that of their stage: `rouge1` is `evaluate/rouge1`."""
    return {name if "/" in name else f"{stage}/{name}": value for name, value in metrics.items()}


def record(
    description: RunDescription,
    logger: LoggerSettings,
    panels: Mapping[str, float],
    summary: Mapping[str, Any],
    *files: Path,
) -> bool:
    """Record what is over as one W&B run.

    Args:
        description: What the run is found by.
        logger: Where it is recorded.
        panels: Values of which W&B makes a panel each, with a bar for every run.
        summary: Further values, each a column of its table of runs.
        *files: What to attach; the run holds copies.

    Returns:
        Whether W&B took all of it.
    """
    mirror = WandbRun(logger, lambda: description)
    if panels:
        mirror.log(panels, step=0)
    mirror.summarise(summary, *files)
    is_complete = mirror.is_live
    mirror.finish()
    return is_complete


def _start_run(logger: LoggerSettings, description: RunDescription) -> Any:
    os.environ.update(WANDB_SILENT="true", WANDB_CONSOLE="off")
    import wandb  # here, so that a cached sweep without new jobs never pays for it

    assert logger.folder is not None, "LoggerSettings checks it"
    Path(logger.folder).mkdir(parents=True, exist_ok=True)
    return wandb.init(
        project=logger.project,
        mode=logger.mode,
        dir=logger.folder,
        settings=private_api.wandb_settings(),
        id=description.id,
        name=_clipped(description.name),
        group=_clipped(description.group),
        job_type=description.job_type,
        tags=[*logger.tags, *description.tags],
        notes=description.notes,
        config=dict(description.config),
    )


def _clipped(name: str) -> str:
    return name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…"
