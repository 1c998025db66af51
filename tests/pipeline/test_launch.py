"""What a launcher gets: every stage once, what is shared first, what is timed last and alone."""

import sys
from pathlib import Path

import pytest
import yaml

from soaes.pipeline import launch, scheduler
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.runtime import Execution, Runtime
from soaes.pipeline.scheduler import Outcome
from soaes.pipeline.store import Store
from soaes.run import run
from tests.helpers.small import SMALL_WORLD


def stage(target, **parents):
    return Recipe(f"soaes.stages.{target}", parents)


WORLD = stage("prepare.pack", seed=0)
ROWS = stage("prepare.pack", rows=WORLD)
TARGET = stage("train.cpt", rows=ROWS)
DRAFTS = [stage("train.distill", parent=TARGET, alpha=alpha) for alpha in range(3)]
EVALUATED = [stage("evaluate.evaluate", model=draft) for draft in DRAFTS]
TRACED = [stage("trace.predict_acceptance", draft=draft) for draft in DRAFTS]
TIMED = [
    stage("speculate.speed", draft=draft, prediction=trace) for draft, trace in zip(DRAFTS, TRACED)
]
GOALS = [*EVALUATED, *TIMED, stage("evaluate.evaluate", model=TARGET)]


@pytest.mark.parametrize("built", [[], [WORLD], [WORLD, ROWS, TARGET, DRAFTS[0]]])
def test_every_stage_is_built_once_behind_what_it_reads(tmp_path, built):
    store = Store(tmp_path)
    for recipe in built:
        store.folder(recipe.name).mkdir()
    parts = launch.rounds(store, GOALS, ("speed",))
    launched = [name for units in parts for unit in units for name in unit]
    assert sorted(launched) == sorted(scheduler.missing(store, GOALS))
    earlier = {recipe.name for recipe in built}
    for units in parts:
        for unit in units:
            done = set(earlier)
            for name, recipe in unit.items():
                assert {parent.name for parent in recipe.parents.values()} <= done
                done.add(name)
        earlier |= {name for unit in units for name in unit}
    assert [set(unit) for unit in parts[-1]] == [{recipe.name for recipe in TIMED}]


def test_what_reads_a_stage_that_has_a_machine_to_itself_comes_behind_it(tmp_path):
    parts = launch.rounds(Store(tmp_path), GOALS, ("distill",))
    assert [len(units) for units in parts] == [1, 1, 1]
    names = list(parts[-1][0])
    for draft, evaluated in zip(DRAFTS, EVALUATED, strict=True):
        assert names.index(draft.name) < names.index(evaluated.name)


def test_what_is_shared_is_one_job_and_each_branch_another(tmp_path):
    parts = launch.rounds(Store(tmp_path), GOALS, ("speed",))
    assert [len(units) for units in parts] == [1, 4, 6, 1]
    assert list(parts[0][0]) == [WORLD.name, ROWS.name, TARGET.name]
    assert launch.plan(parts).startswith("launched in 4 rounds: 1 job of 3 stages, then 4 jobs of")
    (chain,) = launch.rounds(Store(tmp_path), [DRAFTS[0]], ())
    assert len(chain) == 1 and list(chain[0]) == [
        WORLD.name,
        ROWS.name,
        TARGET.name,
        DRAFTS[0].name,
    ]


def test_what_failed_or_was_lost_is_said_and_takes_its_descendants_along(tmp_path):
    store, outcome = Store(tmp_path), Outcome()
    unit = {recipe.name: recipe for recipe in (TARGET, DRAFTS[0], EVALUATED[0])}
    outcome.failed[ROWS.name] = "bad rows"
    assert not launch._possible(store, unit, outcome)
    assert outcome.failed[TARGET.name] == f"needs {ROWS.name}, which failed"
    assert outcome.failed[EVALUATED[0].name] == f"needs {DRAFTS[0].name}, which failed"
    reason = launch._reason(store, TARGET, Outcome(), " (FailedJobError: gone)")
    assert "ended without it (FailedJobError: gone): killed, preempted or out of time" in reason
    with store.lock(TARGET.name):
        assert "a job still builds it" in launch._reason(store, TARGET, Outcome(), "")


# ---------------------------------------------------------------- launchers


def test_hydras_words_are_its_own_and_are_checked_first():
    words = ["seed=0,1", "hydra/launcher=basic", "goal=tokenizer", "hydra.verbose=true"]
    ours, hydras = launch.split(words)
    assert ours == ["seed=0,1", "goal=tokenizer"] and hydras == [words[1], words[3]]
    launch.check(hydras)
    launch.check([])
    with pytest.raises(ValueError, match="hydra.verbose=true: Hydra's own settings count only"):
        launch.check(["hydra.verbose=true"])
    with pytest.raises(
        ValueError, match="launcher=slurm: there is no such launcher here; .*pip install"
    ):
        launch.check(["hydra/launcher=slurm"])
    for settled in ("hydra.mode=RUN", "hydra.sweep.dir=here", "hydra/sweeper=none"):
        with pytest.raises(ValueError, match=f"{settled}: how rounds run, .* is settled; leave it"):
            launch.check(["hydra/launcher=basic", settled])
    for words in (["hydra/launcher=basic,joblib"], ["hydra/launcher=null"]):
        with pytest.raises(ValueError, match=f"{words[0]}: give hydra/launcher one name"):
            launch.check(words)
    with pytest.raises(ValueError, match="n_jbs'; correct the launcher's settings"):
        launch.check(["hydra/launcher=basic", "hydra.launcher.n_jbs=2"])


@pytest.mark.nightly
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_launched_rows_are_those_of_a_sweep_that_runs_here(tmp_path, monkeypatch, capfd, launcher):
    """test_run.py has Hydra's own launcher, basic."""
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    monkeypatch.chdir(tmp_path)
    words = ["goal=tokenizer", *SMALL_WORLD, "logger=none", "tokenizer.vocabulary=600,601"]
    folders = {}
    for name, more in (("here", []), ("launched", [f"hydra/launcher={launcher}"])):
        assert run([*words, *more, f"runtime.store={name}"]) == 0
        (folders[name],) = Path(name).glob("sweeps/*/*")
    printed = capfd.readouterr().out
    assert "launched in 1 round: 1 job of 3 stages; logs of jobs are in" in printed
    assert printed.count("row  tokenizer.vocabulary=600 ") == 2 and "[  3/3]  tokenizer-" in printed
    for number in ("0", "1"):
        here, launched = (folder / number for folder in folders.values())
        assert {path.name for path in here.iterdir()} == {path.name for path in launched.iterdir()}
        overrides = [
            yaml.safe_load((row / "overrides.yaml").read_text()) for row in (here, launched)
        ]
        settings = [[word for word in row if "store=" not in word] for row in overrides]
        assert settings[0] == settings[1]
    assert Store(Path("here")).all_names() == Store(Path("launched")).all_names()


# ---------------------------------------------------------------- several nodes


def test_torchruns_of_all_nodes_get_one_command(tmp_path):
    out = tmp_path / "unfinished" / "cpt-0123456789ab"
    here = scheduler.ranks_command(out, Runtime(tmp_path, Execution(devices=2)))
    assert here[:3] == [sys.executable, "-m", "torch.distributed.run"]
    assert here[3:] == ["--nproc-per-node=2", "-m", "soaes.pipeline.worker", str(out)]
    execution = Execution(devices=16, nodes=2)
    runtime = Runtime(tmp_path, execution, launch="srun --nodes=2 --label", rendezvous="node1")
    there = scheduler.ranks_command(out, runtime)
    assert there[:4] == ["srun", "--nodes=2", "--label", sys.executable]
    assert "--nproc-per-node=8" in there and "--nnodes=2" in there
    port = 29400 + 0x0123456789AB % 1000
    assert f"--rdzv-endpoint=node1:{port}" in there and there[-1] == str(out)


@pytest.mark.parametrize(
    ("settings", "launch_words", "message"),
    [
        ({"devices": 3, "nodes": 2}, "srun", "nodes=2: devices=3 .* a multiple of nodes"),
        ({"devices": 2, "nodes": 2}, "", "nodes=2: nothing starts the other nodes; set runtime.la"),
        ({"devices": 2, "nodes": 2}, "srun '", "runtime.launch=srun ': cannot be read"),
    ],
    ids=["uneven", "nothing-launches", "quotes"],
)
def test_nodes_that_cannot_be_reached_are_refused(tmp_path, settings, launch_words, message):
    with pytest.raises(ValueError, match=message):
        Runtime(tmp_path, Execution(**settings), launch=launch_words)
