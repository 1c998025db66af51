"""Build a goal, or every row of a grid: `python -m soaes.run experiment=table2 scale=smoke`.

All rows are composed first, so a typing error costs nothing; then the union of their missing stages is built, and each row is printed
as its goal is done; then Hydra runs the rows, each of which finds its goal and is recorded. With another Hydra launcher each row builds
what it misses."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from soaes.pipeline import compose, dry_run, progress, sweep, tracking
from soaes.pipeline.scheduler import JobsByGoal, Outcome, build, full_disk
from soaes.pipeline.store import Store
from soaes.pipeline.sweep import Job

HYDRA_FLAGS = (
    "--help",
    "-h",
    "--hydra-help",
    "--version",
    "--cfg",
    "-c",
    "--info",
    "-i",
    "--shell-completion",
    "-sc",
)


def main() -> None:
    signal.signal(signal.SIGTERM, _interrupt)
    words = [
        word for word in sys.argv[1:] if word not in ("-m", "--multirun")
    ]  # a sweep is seen by its commas
    if any(word.split("=")[0] in HYDRA_FLAGS for word in words):
        return _hydra(words, [])
    try:
        sys.exit(run(words))
    except ValueError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def run(words: list[str]) -> int:
    """Exit code of a command line: 0 if every row stands."""
    grids = {tuple(line): sweep.jobs(line) for line in _grids(words)}
    rows = [row for found in grids.values() for row in found]
    store, runtime = Store(Path(rows[0].runtime["store"])), rows[0].runtime
    recipes = [row.recipe for row in rows]
    if runtime["dry"]:
        print("\n".join(dry_run.plan(store, recipes)))
        return 0
    launcher = any(word.startswith("hydra/launcher=") for word in words)
    outcome = Outcome() if launcher else build(store, recipes, runtime, _goals(rows))
    full = bool(outcome.failed) and full_disk(store)
    if outcome.built and runtime["logger"]["mode"] != "disabled":
        say("what could be built is; now each row is recorded in W&B")
    for line, found in grids.items():
        if full:
            say(full)
        elif launcher or not all(_recorded(store, row) for row in found):
            _hydra(list(line), found, outcome)
        else:
            for row in found:
                _report(store, row, outcome)
    failed = [
        (line, row)
        for line, found in grids.items()
        for row in found
        if not store.holds(row.recipe.name)
    ]
    for line, row in failed:
        say(
            f"FAILED  {row.experiment} {row.words}; {progress.checkpoint_note(store, row.recipe)}again: python -m soaes.run {shlex.join(line)}"
        )
    return 1 if failed else 0


def _goals(rows: list[Job]) -> JobsByGoal:
    """Which rows each goal is shown in; two tables may show one."""
    return {
        goal: [(row.experiment, row.words) for row in rows if row.recipe.name == goal]
        for goal in (row.recipe.name for row in rows)
    }


def _grids(words: list[str]) -> list[list[str]]:
    """`experiment=a,b` or `experiment=table*` is several grids: Hydra would merge their files into one and ignore the sweeps."""
    rest = [word for word in words if not word.lstrip("+").startswith("experiment=")]
    return [
        [f"experiment={name}", *rest] if name else rest for name in sweep.experiment_names(words)
    ]


def _hydra(line: list[str], rows: list[Job], outcome: Outcome | None = None) -> None:
    """Let Hydra run the jobs of one grid, in this process or wherever its launcher takes them."""

    def job(cfg: DictConfig) -> None:
        _settle(cfg, rows, outcome or Outcome())

    sys.argv[1:] = ["--multirun", *line] if any(row.overrides for row in rows) else line
    hydra.main(version_base="1.3", config_path=str(compose.CONF), config_name="run")(job)()


def _settle(cfg: DictConfig, rows: list[Job], outcome: Outcome) -> None:
    """One Hydra job: have its goal built (or found), then print the row, unless that was done as it was built, and record it."""
    words, name = HydraConfig.get().overrides.task, compose.recipe_at(cfg, cfg.goal).name
    row = next(
        row
        for row in rows
        if row.recipe.name == name
        and {f"{key}={value}" for key, value in row.overrides.items()} <= set(words)
    )
    store, before = Store(Path(row.runtime["store"])), outcome
    if not store.holds(name) and name not in outcome.failed:
        outcome = build(store, [row.recipe], row.runtime)
    if name in outcome.failed:
        folder = Path(HydraConfig.get().runtime.output_dir)
        again = f"python -m soaes.run {shlex.join(words)}"
        (folder / "error.txt").write_text(
            f"{outcome.failed[name]}\n\nagain: {again}\n\n{_traceback(store, row)}"
        )
        return
    _report(store, row, before)
    if not _recorded(store, row):
        metrics = store.metrics(name)
        tracking.track_job(
            row.name, row.experiment, row.overrides, row.recipe, metrics, row.runtime
        )
        path = store.root / "rows" / f"{row.name}.json"
        path.parent.mkdir(exist_ok=True)
        about = {
            "experiment": row.experiment,
            "overrides": row.overrides,
            "recipe": name,
            "logger": row.runtime["logger"]["mode"],
        }
        path.write_text(json.dumps({**about, "metrics": metrics}))


def _recorded(store: Store, row: Job) -> bool:
    """Of a row that stands. One that was first run without W&B is mirrored when it is next run with it."""
    path = store.root / "rows" / f"{row.name}.json"
    return (
        store.holds(row.recipe.name)
        and path.exists()
        and row.runtime["logger"]["mode"] in ("disabled", json.loads(path.read_text())["logger"])
    )


def _traceback(store: Store, row: Job) -> str:
    """Of the stage in the row's ancestry that failed itself."""
    errors = [
        store.unfinished(name) / "error.txt"
        for name in row.recipe.ancestry()
        if not store.holds(name)
    ]
    return "".join(path.read_text() for path in errors if path.exists())


def _report(store: Store, row: Job, before: Outcome) -> None:
    """Print a row, unless the build of the whole sweep has."""
    if row.recipe.name not in before.built:
        say(
            progress.job_line(
                row.experiment, row.words, row.recipe.name, store.metrics(row.recipe.name)
            )
        )


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
