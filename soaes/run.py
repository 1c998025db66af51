"""Build a goal, or every job of a sweep: `python -m soaes.run experiment=table2 scale=smoke`.

Read downwards. All jobs are composed and checked first, so that a slip costs nothing. Then the
union of their missing stages is built, and each job is printed as its goal is done. At last each
job is recorded: in W&B, and in a folder of its own under `store/sweeps/DATE/TIME-PID/NUMBER`.

With `hydra/launcher=...` the stages are built by jobs that one of Hydra's launchers takes
elsewhere (soaes.pipeline.launch). `--config-dir FOLDER` puts a folder of your own beside conf/.
Hydra's other flags (`--help`, `--cfg job` ...) go to Hydra.
"""

from __future__ import annotations

import os
import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C while the modules below load is one line, not a traceback
    def _leave(*_: object) -> None:
        print("interrupted", flush=True)
        os._exit(130)

    signal.signal(signal.SIGINT, _leave)

import sys
import time
from pathlib import Path
from typing import Any

import hydra
import yaml

from soaes.bill import report as bill
from soaes.pipeline import conf_folders, dry_run, launch, model_checks, progress, sweep
from soaes.pipeline.progress import JobTitle
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.recipe_checks import check_libraries, check_machines, check_peft
from soaes.pipeline.runtime import Runtime
from soaes.pipeline.scheduler import JobsByGoal, Outcome, build, full_disk, missing
from soaes.pipeline.store import Store, check_writable, read_json, write_json, write_text
from soaes.pipeline.sweep import Job
from soaes.report.curation.steps import curated

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
MULTIRUN = ("-m", "--multirun")  # allowed and not needed: commas tell a sweep


def main() -> None:
    """Run the command line and exit: 0 if every job is built, 1 if not, 130 if interrupted."""
    progress.escape_unencodable_text()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        words, folder = conf_folders.split(sys.argv[1:])
        conf_folders.use(folder)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as of a job in the background
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if any(word.split("=")[0] in HYDRA_FLAGS for word in words):
            _check_experiments(words)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `--help | head` ends in silence
            _print_hydra()
            sys.exit(0)
        sys.exit(run([word for word in words if word not in MULTIRUN]))
    except ValueError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt as interruption:
        say(str(interruption) or "interrupted")
        sys.exit(130)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def run(words: list[str]) -> int:
    """Run a command line.

    Args:
        words: Overrides, of which any may be swept; `experiment=` may name several experiments.

    Returns:
        The exit code: 0 if every job is built, else 1.

    Raises:
        ValueError: The command line asks for something that does not exist or is out of its range.
    """
    words, launch_words = launch.split(words)
    launch.check(launch_words)
    sweeps = sweep.sweeps_of(words)
    jobs_of_sweeps = [(line, sweep.jobs(line)) for line in sweeps]
    jobs = [job for _, jobs_of_sweep in jobs_of_sweeps for job in jobs_of_sweep]
    for remark in sweep.check_overrides(jobs):
        say(remark)
    store = Store(jobs[0].runtime.store)
    recipes = [job.recipe for job in jobs]
    model_checks.check(store, recipes, jobs[0].runtime)
    warning = dry_run.slow_precision(store, recipes, jobs[0].runtime)
    if warning:
        say(warning)
    if jobs[0].runtime.dry:
        say("\n".join(dry_run.plan(store, recipes, jobs[0].runtime)))
        if launch_words:
            exclusive = jobs[0].runtime.exclusive_stages
            say(launch.plan(launch.rounds(store, recipes, exclusive)))
        return 0
    check_libraries(store, recipes, jobs[0].runtime)
    check_machines(store, recipes)
    check_peft(store, recipes)
    _check_memory(store, recipes, jobs[0].runtime)
    if not all(store.holds(job.recipe.name) and _recorded(store, job) for job in jobs):
        store.check_keeps_models()
        check_writable(store.root, "set runtime.store=FOLDER, or SOAES_STORE")
    resuming = progress.resuming_line(store, recipes) if len(jobs) > 1 else ""
    if resuming:
        say(resuming)
    _build(store, jobs, launch_words)
    exit_code = 0
    for line, jobs_of_sweep in jobs_of_sweeps:
        for job in jobs_of_sweep:
            if not store.holds(job.recipe.name):
                _say_failed(store, job, [*line, *launch_words])
                exit_code = 1
    _say_curation(store, recipes)
    return exit_code


def _check_memory(store: Store, recipes: list[Recipe], runtime: Runtime) -> None:
    """Refuse stages that do not fit their devices, as far as the models' shapes are known."""
    for warning in bill.check(store, missing(store, recipes), runtime):
        say(warning)


def _check_experiments(words: list[str]) -> None:
    """Refuse an experiment that does not exist; Hydra leaves an optional one out in silence."""
    overrides = [word for word in words if "=" in word and not word.startswith("-")]
    for line in sweep.sweeps_of(overrides):
        sweep.combinations(line)


# ------------------------------------------------------------------------- the build itself


def _build(store: Store, jobs: list[Job], launch_words: list[str]) -> None:
    """Build the union of all jobs' missing stages, then report and record each job.

    Args:
        store: Where they are put.
        jobs: All jobs.
        launch_words: Hydra's launcher and its settings; none: they are built here.
    """
    runtime = jobs[0].runtime
    recipes = [job.recipe for job in jobs]
    published = model_checks.fetched(recipes)
    if published:  # what they cannot be used for is known before hours of training
        build(store, published, runtime)
        model_checks.check(store, recipes, runtime)
        _check_memory(store, recipes, runtime)
    began = time.strftime("%Y-%m-%d/%H-%M-%S")
    run_name = f"{began}-{os.getpid()}"
    if launch_words:
        logs = store.root / "launched" / run_name
        outcome = launch.build(store, recipes, runtime, launch_words, logs)
        outcome = Outcome(failed=outcome.failed)  # its stages are printed, and no job yet
    else:
        counted = bill.counted_seconds(store, missing(store, recipes), runtime)
        outcome = build(store, recipes, runtime, _jobs_by_goal(jobs), counted)
    full = full_disk(store) if outcome.failed else ""
    if full:  # nothing can be recorded either
        say(full)
        return
    if outcome.built and runtime.logger.enabled:
        say("what could be built is; now each row is recorded in W&B")
    folder = store.root / "sweeps" / run_name
    for number, job in enumerate(jobs):
        _settle(store, job, outcome, folder / str(number), _is_counted(job, jobs))


def _is_counted(job: Job, jobs: list[Job]) -> bool:
    """Tell whether a job that was done before has no line: on a terminal the sweep has said so.

    Only rows of an experiment, which tables show; other jobs are shown here alone.
    """
    return bool(job.experiment) and len(jobs) > 1 and sys.stdout.isatty()


def _jobs_by_goal(jobs: list[Job]) -> JobsByGoal:
    """Return which jobs show each goal; two experiments may share one."""
    by_goal: dict[str, list[JobTitle]] = {}
    for job in jobs:
        by_goal.setdefault(job.recipe.name, []).append(_title(job))
    return by_goal


def _title(job: Job) -> JobTitle:
    return JobTitle(job.experiment, job.words)


def _print_hydra() -> None:
    """Let Hydra print what one of its flags asks for; it runs nothing."""
    hydra.main(version_base="1.3", config_path=str(conf_folders.CONF), config_name="run")(
        lambda cfg: None
    )()


# --------------------------------------------------------------------- reports and records


def _settle(store: Store, job: Job, outcome: Outcome, folder: Path, counted: bool = False) -> None:
    """Report and record one job, after its goal was built, found or given up.

    Args:
        store: Where its goal lies.
        job: The job.
        outcome: Which goals were built and reported already, and which failed.
        folder: The job's own folder, which is made if there is something to record.
        counted: Whether nothing is printed of a goal that was found.
    """
    goal = job.recipe.name
    if not store.holds(goal):
        _write_folder(folder, job)
        retry = conf_folders.command(job.arguments)
        error = f"{outcome.failed[goal]}\n\nagain: {retry}\n\n{_traceback(store, job)}"
        write_text(folder / "error.txt", error)
        return
    if goal not in outcome.built and not counted:
        say(progress.job_line(_title(job), goal, store.metrics(goal)))
    if not _recorded(store, job):
        _write_folder(folder, job)
        _record(store, job)


def _write_folder(folder: Path, job: Job) -> None:
    """Write what the job was: its overrides and its composed configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    overrides = yaml.safe_dump(job.arguments, allow_unicode=True)
    write_text(folder / "overrides.yaml", overrides)
    write_text(folder / "config.yaml", job.config())


def _record(store: Store, job: Job) -> None:
    """Mirror a built job to W&B, and note in the store that this is done."""
    metrics = store.metrics(job.recipe.name)
    if job.runtime.logger.enabled:
        from soaes.report import wandb_runs  # here, so that a plan does not wait for numpy

        wandb_runs.record_row(job, metrics)
    record = _record_path(store, job)
    record.parent.mkdir(exist_ok=True)
    facts: dict[str, Any] = {
        "experiment": job.experiment,
        "overrides": job.overrides,
        "recipe": job.recipe.name,
        "logger": job.runtime.logger.mode,
        "metrics": metrics,
    }
    write_json(record, facts)


def _recorded(store: Store, job: Job) -> bool:
    """Tell whether a built job is recorded, in W&B too if this command uses W&B."""
    path = _record_path(store, job)
    if not path.exists():
        return False
    mode = job.runtime.logger.mode
    return mode == "disabled" or mode == read_json(path)["logger"]


def _record_path(store: Store, job: Job) -> Path:
    return store.root / "rows" / f"{job.name}.json"


def _say_curation(store: Store, recipes: list[Recipe]) -> None:
    """Write the page that shows what became of a user's documents, and print where it is.

    A page that cannot be written, as in a store that is only read, fails no run.
    """
    if not any(curated(recipe) for recipe in recipes):
        return
    from soaes.report.curation import page  # here, so that a plan does not wait for numpy

    try:
        for line in page.write_outdated(store, recipes):
            say(f"curation  {line}")
    except (OSError, ValueError) as error:
        say(f"curation  no page: {error}")


def _traceback(store: Store, job: Job) -> str:
    """Return the tracebacks of the stages in a job's ancestry that failed themselves."""
    missing = [name for name in job.recipe.ancestry() if not store.holds(name)]
    paths = [store.unfinished(name) / "error.txt" for name in missing]
    return "".join(path.read_text("utf-8") for path in paths if path.exists())


def _say_failed(store: Store, job: Job, line: list[str]) -> None:
    note = progress.checkpoint_note(store, job.recipe)
    say(f"FAILED  {job.experiment} {job.words}; {note}again: {conf_folders.command(line)}")


def say(line: str) -> None:
    """Print a line at once."""
    progress.write(f"{line}\n")


if __name__ == "__main__":
    main()
