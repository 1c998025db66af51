"""Words are read once, by Hydra's parser, and an override that changes nothing is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from soaes.pipeline import command_line, compose, dry_run, resolvers, sweep
from soaes.pipeline.store import Store
from soaes.report import freshness, results


@pytest.fixture(autouse=True, scope="module")
def store(tmp_path_factory):
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SOAES_STORE", str(tmp_path_factory.mktemp("lines") / "store"))
        yield


@pytest.mark.parametrize("word", ["seed=7", "++seed=7", "seed=7 "])
def test_every_spelling_of_a_value_is_that_value(word):
    assert results.seeds([word]) == [7]
    assert results.at_seeds([word], 1) == [word]


def test_the_last_word_for_a_key_counts_and_a_deleted_key_has_no_value():
    assert command_line.value(["seed=1", "++seed=2", "~seed"], "seed") == "2"
    assert command_line.value(["seed=1,2"], "seed") is None
    assert command_line.without(["++seed=1", "scale=smoke", "~seed"], "seed") == ["scale=smoke"]
    assert results.seeds(["seed=1,2", "++seed=3,4"]) == [3, 4]
    assert results.at_seeds(["++seed=3,4", "scale=smoke"], 1) == ["scale=smoke", "seed=3"]


@pytest.mark.parametrize(
    "word",
    [
        "runtime.store=/tmp/my store",
        'runtime.store="/tmp/my store"',
        "+runtime.store='/tmp/my store'",
    ],
    ids=["spaces", "quotes", "added"],
)
def test_the_store_is_read_as_hydra_reads_it(word):
    assert str(resolvers.cache_folder([word])) == "/tmp/my store/.cache"


def test_an_override_of_the_execution_is_told_by_its_key():
    words = ["runtime=cpu", "++runtime.store=x", "logger=none", "~logger.folder", "scale=tiny"]
    assert [freshness.is_execution(word) for word in words] == [True] * 4 + [False]


def test_a_glob_chooses_among_the_options_of_its_group():
    chains = sorted(path.stem for path in (compose.CONF / "chain").glob("cpt*.yaml"))
    swept = [swept for swept, _ in sweep.combinations(["chain@target=glob(cpt*)"])]
    assert swept == [{"chain@target": chain} for chain in chains] and len(chains) > 1
    tables = sweep.sweeps_of(["experiment=glob(table4*)", "seed=1"])
    assert tables == sweep.sweeps_of(["experiment=table4*", "seed=1"]) and len(tables) == 3
    with pytest.raises(ValueError, match="chooses among .*paper, smoke, tiny"):
        sweep.combinations(["scale=glob(x*)"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed=0,0"], "seed=0,0: 0 would be one job twice; leave one out"),
        (["distill.tau=1,2,1.0"], "distill.tau=1,2,1.0: 1 and 1.0 would be one job twice"),
        (["chain@target=full,cpt_sft2,full"], "full would be one job twice"),
        (["experiment=table2,table2"], "table2 would be one job twice"),
        (["experiment=table2,"], "experiment=table2,: a comma has no value beside it"),
        (["seed=0", "experiment=table2,,table1"], "experiment=table2,,table1: a comma has no"),
        (["seed=,1"], "seed=,1: a comma has no value beside it; leave it out"),
    ],
    ids=[
        "twice",
        "two-spellings",
        "option",
        "experiment",
        "comma-at-the-end",
        "two-commas",
        "comma-at-the-start",
    ],
)
def test_a_value_given_twice_or_not_at_all_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        for line in sweep.sweeps_of(words):
            sweep.combinations(line)


def test_patterns_that_share_an_experiment_run_it_once():
    assert sweep.sweeps_of(["experiment=table2,tabl*2"]) == [["experiment=table2"]]


def test_one_scale_is_read_at_a_time():
    with pytest.raises(ValueError, match="scale=smoke,tiny: one scale at a time"):
        compose.chosen_option(["scale=smoke,tiny"], "scale")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("distill.alpha=0.3,0.7", "distill.alpha=0.3: .*goal=evaluate subject=target.chat; "),
        ("distill.alpha=0.3", "it is read by distill; choose one with goal= or subject="),
        ("soft_targets=topk", "soft_targets=topk: .*it is read by teacher_logits, distill;"),
        (
            "goal=target.cpt subject=distill",
            "subject=distill: it changes nothing of goal=target.cpt",
        ),
        ("sampling=greedy", "it is read by speed, acceptance, target_trace"),
        ("goal=rows.stage2 +rows.stage3.x=1", r"\+rows.stage3.x=1: .*no stage reads it"),
        ("+alpha=0.3 subject=distill", r"\+alpha=0.3: .*no stage reads it"),
    ],
)
def test_an_override_that_changes_nothing_is_refused_with_where_it_belongs(words, message):
    with pytest.raises(ValueError, match=message):
        sweep.check_overrides(sweep.jobs(words.split()))


@pytest.mark.parametrize(
    "words",
    [
        "subject=distill distill.alpha=0.3,0.7",
        "subject=distill optim.draft.lr=1e-3 soft_targets=topk",
        "subject=distill 'optim.sft2.betas=[0.9,0.99]'",
        "goal=target.cpt size=small",
        "runtime=one_gpu logger=none dry=true seed=0",
        "goal=speed decode=prompt_lookup speed.decode.n=5 rule=block",
        "subject=distill teacher_logits=vllm",
        "goal=speed subject=distill speed.prediction=null",
    ],
)
def test_an_override_that_changes_something_is_let_through(words):
    words = [word.strip("'") for word in words.split()]
    assert sweep.check_overrides(sweep.jobs(words)) == []


@pytest.mark.parametrize("experiments", ["table4_alpha", "table4_alpha,table4_tau"])
def test_what_reaches_no_row_of_an_experiment_is_remarked_on(experiments):
    lines = sweep.sweeps_of([f"experiment={experiments}", "shots=2"])
    jobs = [job for line in lines for job in sweep.jobs(line)]
    (remark,) = sweep.check_overrides(jobs)
    assert remark.startswith("shots=2: it changes nothing") and "read by benchmark" in remark


def built(store, recipe, seconds):
    """Put a folder with a manifest for a recipe and all before it into a store."""
    for name, ancestor in recipe.ancestry().items():
        folder = store.root / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.yaml").write_text(yaml.safe_dump(ancestor.written))
        facts = {"files": {"x": {"bytes": 10**6}}, "seconds": seconds, "peak_memory_mb": 5}
        (folder / "manifest.json").write_text(json.dumps(facts | {"source": "s"}))


def test_a_measured_time_is_of_a_stage_of_the_same_kind_and_size(tmp_path):
    store = Store(tmp_path)
    (small,) = sweep.jobs(["subject=distill", "scale=smoke"])
    built(store, small.recipe, seconds=2.0)
    (other_seed,) = sweep.jobs(["subject=distill", "scale=smoke", "seed=5"])
    todo = other_seed.recipe.ancestry()
    assert dry_run.measured_seconds(store, todo) == dict.fromkeys(todo, 2.0)
    (paper,) = sweep.jobs(["subject=distill", "scale=paper", "runtime=a800x8"])
    assert dry_run.measured_seconds(store, paper.recipe.ancestry()) == {}


@pytest.mark.parametrize("module", ["run", "table"])
def test_a_reader_that_goes_away_gets_no_traceback(module, tmp_path):
    folder = Path(compose.CONF).parent
    program = f"{sys.executable} -m soaes.{module} --help | true"
    ran = subprocess.run(program, shell=True, cwd=folder, capture_output=True, text=True)
    assert ran.stderr == ""


@pytest.mark.parametrize("word", ["seed='7'", "optim.sft2.lr='1e-3'"])
def test_a_number_in_quotes_is_called_text(word):
    with pytest.raises(ValueError, match="this is text: leave the quotes out"):
        sweep.jobs([word])
