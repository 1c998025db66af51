"""Build a set of recipes: run their missing stages, parents first, each in a process of its own.

Independent stages run side by side. A failing stage takes only its descendants down. Knows
processes and folders: no Hydra, no torch. What a person sees of a build is drawn by
`soaes.pipeline.progress`.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from soaes.pipeline import forecast, progress, signatures, worker
from soaes.pipeline.private_api import WANDB_MODULES
from soaes.pipeline.processes import die_with_parent
from soaes.pipeline.progress import JobTitle, TableProgress
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.runtime import Runtime
from soaes.pipeline.store import Store, machine_lock, write_json

# Imported once by the process from which the stages that compute are forked.
PRELOAD = ["soaes.pipeline.preload"]

# A training step allocates and frees some 100 MB. By default glibc returns them to the kernel, and
# the next step faults every page in again; with these settings it keeps them, in huge pages. 32 MB
# is the largest mmap_threshold that glibc accepts.
ALLOCATOR = ":".join(
    [
        "glibc.malloc.hugetlb=1",
        f"glibc.malloc.mmap_threshold={32 << 20}",
        f"glibc.malloc.trim_threshold={256 << 20}",
        f"glibc.malloc.top_pad={16 << 20}",
    ]
)

MEGABYTE = 1 << 20

FIRST_PORT, PORTS = 29400, 1000  # where the ranks of several nodes meet; 29400 is torchrun's own

SHORT_FOLDER = "/tmp"  # for sockets, where TMPDIR is too long
LAST_WORDS = 16_384  # bytes of a log's end, which torchrun's traceback fits
LONGEST_SOCKET_PATH = 103 if sys.platform == "darwin" else 107  # bytes
LONGEST_SOCKET_FOLDER = LONGEST_SOCKET_PATH - len("/pymp-xxxxxxxx/listener-xxxxxxxx")

JobsByGoal = Mapping[str, Sequence[JobTitle]]
"""Name of a goal -> the jobs that show it; two tables may show one goal."""


@dataclass
class Outcome:
    """What became of the stages that were asked for, by folder name."""

    built: dict[str, float] = field(default_factory=dict)
    """Seconds that each built stage took."""

    failed: dict[str, str] = field(default_factory=dict)
    """Reason for which each stage failed or was not started."""


@dataclass(frozen=True)
class StageProcess:
    """A stage under way."""

    process: BaseProcess
    started: float
    """time.monotonic() at its start."""


def missing(store: Store, recipes: Iterable[Recipe]) -> dict[str, Recipe]:
    """Return the stages to run for some recipes, parents first, by name.

    Ancestors of a stage that is in the store are not needed: its folder is all that is read.
    """
    todo: dict[str, Recipe] = {}

    def visit(recipe: Recipe) -> None:
        if recipe.name in todo or store.holds(recipe.name):
            return
        for parent in recipe.parents.values():
            visit(parent)
        todo[recipe.name] = recipe

    for recipe in recipes:
        visit(recipe)
    return todo


def computes(recipe: Recipe) -> bool:
    """Tell whether a stage computes with torch: its module, or one that it imports, loads it."""
    module = recipe.target.rpartition(".")[0]
    return bool(signatures.imported(module) & {"torch", "transformers", "pytorch_lightning"})


def build(
    store: Store,
    recipes: Iterable[Recipe],
    runtime: Runtime,
    jobs: JobsByGoal | None = None,
    counted: Mapping[str, float] | None = None,
    silent: bool = False,
) -> Outcome:
    """Build what is missing of some recipes, and print a line for each stage.

    Args:
        store: Where outputs are found and put.
        recipes: The goals.
        runtime: How stages are run.
        jobs: The jobs that show each goal. Where given, each job is printed when its goal is done,
            and a terminal shows a board of everything under way.
        counted: Seconds of stages by the bill (soaes.bill), for the time to go.
        silent: Whether nothing is printed.

    Returns:
        What was built and what failed. An empty outcome says that nothing was missing.
    """
    outcome = Outcome()
    todo = missing(store, recipes)
    if todo:
        Scheduler(store, todo, runtime, outcome, jobs or {}, counted, silent).run()
    return outcome


class Scheduler:
    """Runs the stages of one build.

    State: which stages are ready and which run, what is expected of them, and the screen.
    """

    def __init__(
        self,
        store: Store,
        todo: dict[str, Recipe],
        runtime: Runtime,
        outcome: Outcome,
        jobs: JobsByGoal,
        counted: Mapping[str, float] | None = None,
        silent: bool = False,
    ) -> None:
        """Prepare the graph of stages; see `build` for the arguments.

        Args:
            todo: The stages to run, parents first, by name.
            outcome: Filled while the build goes on.
        """
        self.store = store
        self.todo = todo
        self.runtime = runtime
        self.outcome = outcome
        self.jobs = jobs
        self.graph: TopologicalSorter[str] = TopologicalSorter()
        for name, recipe in todo.items():
            parents = {parent.name for parent in recipe.parents.values()}
            self.graph.add(name, *(parents & todo.keys()))
        self.graph.prepare()
        self.ready: list[str] = []
        self.running: dict[str, StageProcess] = {}
        self.forecast = forecast.Forecast(store, todo, counted)
        self.screen = progress.Screen(live=bool(jobs), silent=silent)

    def run(self) -> None:
        """Run every stage.

        Raises:
            KeyboardInterrupt: After Ctrl-C has ended the running ones; its message says so.
        """
        try:
            self._start_server()
            while self.graph.is_active():
                self._start_ready()
                if self.running:
                    self._wait()
                    self._finish_ended()
        except KeyboardInterrupt:
            self._end_running()
            count = len(self.outcome.built)
            raise KeyboardInterrupt(
                f"interrupted: {count} stages are finished; run the same command again to continue"
            ) from None
        finally:
            self.screen.close()

    # ------------------------------------------------------------ starting

    def _start_server(self) -> None:
        """Start the process that loads the heavy modules, if any stage is to be a fork of it.

        The stages that need none of them run while it loads.
        """
        os.environ.update(
            OMP_NUM_THREADS=str(self.runtime.execution.threads),
            TOKENIZERS_PARALLELISM="false",
            HF_HUB_DISABLE_PROGRESS_BARS="1",
            # a question for GPUs does not initialise CUDA, which no fork could use then
            PYTORCH_NVML_BASED_CUDA_CHECK="1",
        )
        os.environ.setdefault("GLIBC_TUNABLES", ALLOCATOR)
        if any(self._is_forked(recipe) for recipe in self.todo.values()):
            wandb_modules = WANDB_MODULES if self.runtime.logger.enabled else ()
            forkserver.set_forkserver_preload([*PRELOAD, *wandb_modules])
            choose_socket_folder()
            with sigint_blocked():
                forkserver.ensure_running()

    def _is_forked(self, recipe: Recipe) -> bool:
        return computes(recipe) and recipe.stage not in self.runtime.torchrun

    def _start_ready(self) -> None:
        """Start the ready stages that may start, the one with the longest critical path first."""
        self.ready.extend(self.graph.get_ready())
        seconds = {name: self.forecast.seconds(name) for name in self.todo}
        path_seconds = forecast.critical_path(self.todo, seconds)
        self.ready.sort(key=lambda name: -path_seconds[name])
        for name in list(self.ready):
            failed_parent = self._failed_parent(name)
            if failed_parent is not None:
                self.ready.remove(name)
                self.outcome.failed[name] = f"needs {failed_parent}, which failed"
                self.graph.done(name)
            elif self._may_start(name):
                self.ready.remove(name)
                with sigint_blocked():
                    process = self._start(self.todo[name])
                    self.running[name] = StageProcess(process, time.monotonic())

    def _failed_parent(self, name: str) -> str | None:
        for parent in self.todo[name].parents.values():
            if parent.name in self.outcome.failed:
                return parent.name
        return None

    def _may_start(self, name: str) -> bool:
        """Tell whether there is room; an exclusive stage waits until nothing else can run."""
        if not self._is_exclusive(name):
            return len(self.running) < self.runtime.parallel_stages
        return not self.running and all(self._is_exclusive(other) for other in self.ready)

    def _is_exclusive(self, name: str) -> bool:
        return self.todo[name].stage in self.runtime.exclusive_stages

    def _start(self, recipe: Recipe) -> BaseProcess:
        """Start the process of a stage: a fork of the server, or one of its own without torch."""
        context: SpawnContext | ForkServerContext = multiprocessing.get_context("spawn")
        if self._is_forked(recipe):
            context = multiprocessing.get_context("forkserver")
        exclusive = self._is_exclusive(recipe.name)
        arguments = (self.store, recipe, self.runtime, exclusive)
        process = context.Process(target=build_stage, args=arguments)
        process.start()
        return process

    # ------------------------------------------------------------ waiting and finishing

    def _wait(self) -> None:
        """Wait until a stage ends, or until the board is due again."""
        if self.screen.is_due():
            self.screen.draw(self._board())
        sentinels = [stage.process.sentinel for stage in self.running.values()]
        wait(sentinels, timeout=self.screen.INTERVAL if self.screen.live else None)

    def _finish_ended(self) -> None:
        ended = [name for name, stage in self.running.items() if not stage.process.is_alive()]
        for name in ended:
            self._finish(name)

    def _finish(self, name: str) -> None:
        """Record and print what became of a stage, and release its children."""
        stage = self.running.pop(name)
        seconds = time.monotonic() - stage.started
        built = self.store.holds(name)
        if built:
            self.outcome.built[name] = seconds
            self.forecast.learn(name, seconds)
            result = f"{seconds:.1f} s  {progress.headline(self.store.metrics(name))}"
        else:
            self.outcome.failed[name] = _failure_reason(self.store, name, stage.process.exitcode)
            result = f"FAILED: {self.outcome.failed[name]}"
        board = self._board()
        count = f"{board.built + board.failed:>3}/{board.stages}"
        self.screen.print(f"[{count}, {board.eta:>4.0f} s to go]  {name}  {result}")
        if built:
            for title in self.jobs.get(name, []):
                self.screen.print(progress.job_line(title, name, self.store.metrics(name)))
        self.graph.done(name)

    def _end_running(self) -> None:
        """End the running stages; each leaves its unfinished folder."""
        for stage in self.running.values():
            stage.process.terminate()
        for stage in self.running.values():
            stage.process.join()

    # ------------------------------------------------------------ what the board shows

    def _board(self) -> progress.BoardState:
        running = [self._running_stage(name) for name in self.running]
        outcome = self.outcome
        waiting = self.todo.keys() - outcome.built.keys() - outcome.failed.keys()
        waiting -= self.running.keys()
        seconds = {name: self.forecast.seconds(name) for name in waiting}
        seconds.update({stage.name: stage.eta for stage in running})
        guessed = {stage.name for stage in running if stage.share is None}
        guessed |= {name for name in waiting if self.forecast.is_guess(name)}
        eta = forecast.eta(
            self.todo, seconds, self.runtime.exclusive_stages, self.runtime.parallel_stages
        )
        return progress.BoardState(
            tables=self._tables(),
            running=running,
            built=len(outcome.built),
            failed=len(outcome.failed),
            stages=len(self.todo),
            eta=eta,
            guessed=sorted({self.todo[name].stage for name in guessed}),
        )

    def _running_stage(self, name: str) -> forecast.RunningStage:
        elapsed = time.monotonic() - self.running[name].started
        folder = self.store.unfinished(name)
        return forecast.running_stage(name, elapsed, self.forecast, folder)

    def _tables(self) -> dict[str, TableProgress]:
        """Return the progress of each table; table3_alpha and table3_tau are rows of one table."""
        tables: dict[str, TableProgress] = {}
        for goal, titles in self.jobs.items():
            is_done = goal in self.outcome.built or goal not in self.todo
            for title in titles:
                table = title.experiment.partition("_")[0] or "rows"
                rows = tables.get(table, TableProgress(0, 0))
                tables[table] = TableProgress(rows.done + is_done, rows.total + 1)
        return tables


# ---------------------------------------------------------------- the child process


def build_stage(store: Store, recipe: Recipe, runtime: Runtime, exclusive: bool) -> None:
    """Build one stage in this process, unless another process has built it meanwhile.

    Args:
        store: Where the output is put.
        recipe: The stage.
        runtime: How it is run: in this process, or by torchrun as several ranks.
        exclusive: Whether to wait until no other stage of this store runs on this machine, and keep
            others waiting.
    """
    with store.lock(machine_lock(), shared=not exclusive), store.build(recipe) as out:
        if out is None:
            return
        if recipe.stage not in runtime.torchrun:
            worker.main(store, recipe.name, runtime)
            return
        write_json(out / "runtime.json", runtime.to_plain())
        log = out / "log.txt"
        try:
            with open(log, "ab") as output:  # torchrun's words; the ranks open it themselves
                ended = subprocess.run(
                    ranks_command(out, runtime),
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    preexec_fn=die_with_parent,  # they end with the process that holds their lock
                )
            lost = f"{worker.LOST_RANK}; see {log}" if ended.returncode else ""
        except OSError as error:
            lost = f"runtime.launch={runtime.launch}: cannot be started ({error.strerror}); fix it"
        if lost:
            if not store.failure(recipe.name) and not _was_signalled(log):
                (out / "reason.txt").write_text(lost, encoding="utf-8")
            sys.exit(1)


def _was_signalled(log: Path) -> bool:
    """Tell whether torchrun itself was sent a signal; else the ranks beside a lost one were."""
    return log.exists() and b"SignalException" in log.read_bytes()[-LAST_WORDS:]


def ranks_command(out: Path, runtime: Runtime) -> list[str]:
    """Return the command that starts the ranks of a stage, on one node or on several.

    Every node runs the same words. Its processes meet at a port that follows from the stage's
    name, so that two builds do not meet each other.

    Args:
        out: The stage's unfinished folder, which every node reaches by this path.
        runtime: How many ranks there are, and what starts them on other nodes.
    """
    execution = runtime.execution
    command = [
        *shlex.split(runtime.launch),
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nproc-per-node={execution.devices_per_node}",
    ]
    if runtime.launch:
        port = FIRST_PORT + int(out.name.rpartition("-")[2], 16) % PORTS
        command += [
            f"--nnodes={execution.nodes}",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={runtime.rendezvous or socket.gethostname()}:{port}",
            f"--rdzv-id={out.name}",
        ]
    return [*command, "-m", "soaes.pipeline.worker", str(out.absolute())]


@contextmanager
def sigint_blocked() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach while they load, and note each that was started.

    A terminal sends SIGINT to all of them; where Python is still importing it would print a
    traceback. They inherit the block, and `worker.main` lifts it once it can write down an
    interruption. Before that SIGTERM ends them. At the end our own block is lifted, and a Ctrl-C
    that came meanwhile raises KeyboardInterrupt.
    """
    resource_tracker.ensure_running()  # its start would lift the block
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _failure_reason(store: Store, name: str, exitcode: int | None) -> str:
    if reason := store.failure(name):
        return reason
    if message := full_disk(store):
        return message
    if exitcode and exitcode < 0:
        end = f"killed by signal {-exitcode}; was it out of memory?"
    else:
        end = f"ended with exit code {exitcode}"
    return f"{end}; see {store.unfinished(name)}"


def choose_socket_folder() -> None:
    """Have multiprocessing keep the sockets of this process and its children where their names fit.

    It keeps them below TMPDIR. The path of a socket has 107 bytes at most, and that of a batch
    system's job may be longer.

    Raises:
        ValueError: No other folder for temporary files can be written.
    """
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) <= LONGEST_SOCKET_FOLDER:
        return
    try:
        tempfile.tempdir = SHORT_FOLDER
        multiprocessing.util.get_temp_dir()  # made once; the processes started from here inherit it
    except OSError as error:
        raise ValueError(
            f"TMPDIR={folder}: {len(os.fsencode(folder))} bytes are too long for a socket, at most "
            f"{LONGEST_SOCKET_FOLDER}, and {SHORT_FOLDER} cannot be written ({error.strerror}); "
            "set a shorter TMPDIR"
        ) from None
    finally:
        tempfile.tempdir = folder


def full_disk(store: Store) -> str:
    """Return what to say when nothing more can be written; empty while there is room."""
    if shutil.disk_usage(store.root).free >= MEGABYTE:
        return ""
    return (
        f"the disk of {store.root} is full; free some space and run the same command again, "
        "finished stages are kept"
    )
