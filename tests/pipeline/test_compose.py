"""Every experiment composes at every scale; the paper's scale has the paper's settings."""

import dataclasses
import importlib
import inspect
import re
import shlex
from pathlib import Path

import hydra
import pytest
import yaml
from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf

from soaes.data.settings import PackingSettings
from soaes.pipeline import (
    compose,
    domains,
    labels,
    recipe_checks,
    signatures,
    sweep,
    validation,
    worker,
)
from soaes.pipeline.recipe import declared_name
from soaes.report import results, table_spec

EXPERIMENTS = sorted(path.stem for path in (compose.CONF / "experiment").glob("*.yaml"))


@pytest.fixture(autouse=True, scope="module")
def store(run_folder):
    """One store for all tests here: sweeps that several of them compose are composed once.

    The workers of one test run share it.
    """
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SOAES_STORE", str(run_folder / "compose" / "store"))
        yield


def composed_experiments():
    """Every experiment at smoke, and by night at the other scales."""
    for experiment in EXPERIMENTS:
        for scale in ("smoke", "tiny", "one_gpu", "eight_gpu", "paper"):
            marks = [] if scale == "smoke" else [pytest.mark.nightly]
            yield pytest.param(experiment, scale, marks=marks)


@pytest.mark.parametrize(("experiment", "scale"), composed_experiments())
def test_every_experiment_composes(experiment, scale):
    jobs = sweep.jobs([f"experiment={experiment}", f"scale={scale}"])
    swept = yaml.safe_load((compose.CONF / "experiment" / f"{experiment}.yaml").read_text())[
        "hydra"
    ]["sweeper"]["params"]
    expected = 1
    for values in swept.values():
        expected *= len(values.split(","))
    assert len(jobs) == len({job.name for job in jobs}) == expected
    if experiment == "search_general" and scale not in ("smoke", "tiny"):
        # A base that is fetched has no learning rate of ours: a run refuses the sweep.
        assert all(len(job.idle) == 1 for job in jobs)
        return
    assert not [job.idle for job in jobs if job.idle], "an override that reaches nothing"
    assert len({job.recipe.name for job in jobs}) == expected, "two jobs of a sweep are one recipe"


@pytest.mark.parametrize("name", table_spec.table_names())
def test_table_rows_exist_in_their_sweeps(name):
    spec = table_spec.load(name)
    for key, row in spec.rows.items():
        for role, experiment in row.sweeps.items():
            alone = dataclasses.replace(row, sweeps={role: experiment})
            (goals,) = results.row_recipes(key, alone, ["scale=smoke"]).values()
            assert goals[role].stage == role, (key, experiment)
    for claim in spec.claims.values():
        pairs = [*claim.pairs, *(pair for pairs in claim.also.values() for pair in pairs)]
        for cell in (cell for pair in pairs for cell in pair.cells):
            other = table_spec.load(cell.table) if cell.table else spec
            assert cell.row in other.rows and cell.metric in other.all_columns, cell.text


def test_sweeps_of_few_seeds_are_those_that_the_makefile_runs_so():
    text = (compose.CONF.parent / "Makefile").read_text()
    assert f"$(wordlist 1,{results.FEW_SEEDS}," in text
    in_few = re.findall(r"'experiment=(\w+)\*' scale=\S+ seed=\$\(few_seeds\)", text)
    assert sorted(in_few) == ["formats", "retention", "speed"]
    for name in table_spec.table_names():
        spec = table_spec.load(name)
        for row in spec.rows.values():
            for role, experiment in row.sweeps.items():
                assert (role in spec.few_seeds) == experiment.startswith(tuple(in_few))
                assert (role == "speed") == experiment.startswith("speed")


@pytest.mark.parametrize(
    ("scale", "precision"),
    [("smoke", "32-true"), ("tiny", "32-true"), ("paper", "bf16-mixed")],
    ids=["smoke", "tiny", "paper"],
)
def test_every_phase_trains_in_the_precision_of_its_scale(scale, precision):
    (row,) = sweep.jobs(["goal=distill", f"scale={scale}"])
    phases = [
        recipe.arguments["optim"]["precision"]
        for recipe in row.recipe.ancestry().values()
        if "optim" in recipe.arguments
    ]
    assert len(phases) >= 6 and set(phases) == {precision}


def ancestor(row, stage, **wanted):
    recipes = [
        recipe
        for recipe in row.recipe.ancestry().values()
        if recipe.stage == stage
        and all(labels.flatten(recipe.written).get(key) == value for key, value in wanted.items())
    ]
    assert len(recipes) == 1, [recipe.name for recipe in recipes]
    return labels.flatten(recipes[0].written)


def test_the_papers_scale_carries_the_papers_settings():
    words = ["scale=paper", "runtime=a800x8"]
    (row,) = sweep.jobs(["goal=distill", *words])
    cpt = [
        labels.flatten(recipe.written)
        for recipe in row.recipe.ancestry().values()
        if recipe.stage == "cpt"
    ]
    for phase in cpt:  # both sizes
        assert (phase["optim.lr"], phase["optim.global_batch_size"], phase["optim.epochs"]) == (
            1e-5,
            64,
            1,
        )
        assert phase["optim.schedule._target_"].endswith(".CosineSchedule")
        assert (phase["optim.schedule.warmup"], phase["optim.schedule.final"]) == (0.05, 0.1)
    stages = {
        tuple(recipe.arguments["rows"].arguments["sources"]): labels.flatten(recipe.written)
        for recipe in row.recipe.ancestry().values()
        if recipe.stage == "sft"
    }
    for reads, lr, batch in ((("dialogue",), 1e-6, 64), (("qa",), 3.5e-6, 8)):
        phase = stages[reads]
        assert (phase["optim.lr"], phase["optim.global_batch_size"], phase["optim.epochs"]) == (
            lr,
            batch,
            1,
        )
        assert (
            phase["optim.schedule._target_"].endswith(".ConstantSchedule")
            and phase["optim.schedule.warmup"] == 0.05
        )
    distill = labels.flatten(row.recipe.written)
    assert (
        distill["alpha"],
        distill["tau"],
        distill["optim.lr"],
        distill["optim.global_batch_size"],
    ) == (0.5, 2, 3.5e-6, 8)
    assert {
        recipe.arguments["context"]
        for recipe in row.recipe.ancestry().values()
        if recipe.stage == "pack"
    } == {8192}
    repos = {
        recipe.arguments["repo"]
        for recipe in row.recipe.ancestry().values()
        if recipe.stage == "fetch"
    }
    assert repos == {"Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-72B"}
    execution = row.runtime.execution
    assert (execution.devices, execution.attention) == (8, "flash_attention_2")
    assert execution.gradient_checkpointing
    assert execution.parallelism == "zero3" and execution.cpu_offload
    assert execution.checkpoint_every > 0, "a killed stage resumes"
    (speed,) = sweep.jobs(["goal=speed", "subject=distill", *words])
    decode = labels.flatten(speed.recipe.written)
    assert (decode["decode.n"], decode["sampling.top_p"], decode["sampling.temperature"]) == (
        3,
        0.7,
        1,
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(["distil.alpha=0.5"], "Did you mean distill.alpha", id="unknown-key"),
        pytest.param(
            ["data=files", "data.root=x", "data.select.selection.treshold=0.5"],
            "Did you mean data.select.selection.threshold",
            id="unknown-key-of-an-option",
        ),
        pytest.param(["chain@target=ful"], "Did you mean full", id="unknown-chain"),
        pytest.param(["scale=smok"], "Did you mean smoke", id="unknown-scale"),
        pytest.param(["experiment=tabel2"], "Did you mean table2", id="unknown-experiment"),
        pytest.param(["goal=evaluat"], "did you mean evaluate", id="unknown-goal"),
        pytest.param(["subject=target.chatt"], "did you mean target.chat", id="unknown-subject"),
        pytest.param(
            ["goal=distill", "distill.alpha=1.5"], r"alpha=1.5.*\[0, 1\]", id="alpha-too-large"
        ),
        pytest.param(
            ["goal=distill", "distill.alpha=high"], r"alpha=high.*\[0, 1\]", id="alpha-a-word"
        ),
        pytest.param(["goal=distill", "distill.tau=0"], "tau=0.*positive", id="tau-zero"),
        pytest.param(
            ["goal=speed", "subject=distill", "speed.decode.n=0"], "n=0.*at least 1", id="n-zero"
        ),
        pytest.param(
            ["goal=speed", "subject=distill", "sampling.top_p=0"],
            r"top_p=0.*\(0, 1\]",
            id="top-p-zero",
        ),
        pytest.param(
            ["context=2"],
            "context=2: must be a whole number of at least 16",
            id="context-too-small",
        ),
        pytest.param(["data=files"], "data.root", id="data-root-missing"),
        pytest.param(
            ["data.categories=[金融]"],
            r"data.categories=\[金融\].*takes quotes",
            id="categories-not-quoted",
        ),
        pytest.param(["nonsense"], "nonsense.*key=value", id="no-key"),
        pytest.param(["evaluate._target_=os.system"], "os.system is not ours", id="stage-not-ours"),
        pytest.param(
            ["runtime.execution.strategy={_target_: os.system, command: ls}"],
            "strategy=.*os.system.*: must be one of auto, ddp, fsdp2, zero3",
            id="strategy-not-a-name",
        ),
        pytest.param(
            ["runtime.parallel_stages=0"],
            "parallel_stages=0: must be a whole number of at least 1",
            id="parallel-stages-zero",
        ),
        pytest.param(
            ["runtime.execution.micro_batch_size=0"],
            "micro_batch_size=0",
            id="micro-batch-size-zero",
        ),
        pytest.param(["seed=x"], "seed=x", id="seed-a-word"),
        pytest.param(["eval_samples=-5"], "limit=-5.*null for all", id="eval-samples-negative"),
        pytest.param(
            ["goal=target.cpt", "rows.corpus.replay=1"], r"replay=1.*\[0, 1\)", id="replay-of-one"
        ),
        pytest.param(
            ["world.unseen_enterprises=-1"],
            "unseen_enterprises=-1.*whole number of at least 0",
            id="unseen-enterprises-negative",
        ),
        pytest.param(["size=larg"], "Did you mean large", id="unknown-size"),
        pytest.param(
            ["optim.sft2.global_batch_size=2.5"],
            "global_batch_size=2.5",
            id="global-batch-size-a-fraction",
        ),
        pytest.param(
            ["packing.overflow=eror"],
            "overflow=eror: .*one of auto, split, drop, error",
            id="overflow-unknown",
        ),
        pytest.param(
            ["goal=speed", "subject=distill", "speed.dtype=int8"],
            "dtype=int8: must be one of",
            id="dtype-of-speed",
        ),
        pytest.param(
            ["goal=distill", "distill.module.tau_squared=no"],
            "tau_squared=no: must be true or false",
            id="tau-squared-a-word",
        ),
        pytest.param(
            ["runtime.execution.compile=yes"],
            "compile=yes: must be true or false",
            id="compile-a-word",
        ),
        pytest.param(
            ["runtime.execution.checkpoint_every=soon"],
            "checkpoint_every=soon: must be a number of at least 0 .seconds",
            id="checkpoint-every-a-word",
        ),
        pytest.param(
            ["goal=teacher_logits", "soft_targets=topk", "soft_targets.vocab=-3"],
            "vocab=-3: must be a whole number of at least 1",
            id="vocab-negative",
        ),
        pytest.param(
            ["goal=teacher_logits", "soft_targets=topk", "soft_targets.k=0"],
            "k=0: must be a whole number of at least 1",
            id="k-zero",
        ),
        pytest.param(
            ["goal=teacher_logits", "soft_targets=topk", "soft_targets.k=null"],
            "k=null: must be a whole number of at least 1",
            id="k-null",
        ),
        pytest.param(
            ["goal=teacher_logits", "soft_targets=sampled", "soft_targets.draws=0"],
            "draws=0: must be a whole number of at least 1",
            id="draws-zero",
        ),
        pytest.param(
            ["goal=teacher_logits", "soft_targets=topk", "soft_targets.taus=[]"],
            r"taus=\[\]: must be a list of one or more positive",
            id="taus-empty",
        ),
        pytest.param(
            ["goal=teacher_logits", "soft_targets=topk", "soft_targets.taus=2"],
            "taus=2: must be a list",
            id="taus-a-number",
        ),
        pytest.param(
            ["goal=teacher_logits", "soft_targets=sampled", "soft_targets.taus=[0]"],
            r"taus=\[0\]: must be a list",
            id="taus-zero",
        ),
        pytest.param(
            ["goal=teacher_logits", "soft_targets=sampled", "soft_targets.taus=null"],
            "taus=null: must be a list",
            id="taus-null",
        ),
        pytest.param(
            ["goal=teacher_logits", "soft_targets.dtype=null"],
            "dtype=null: must be one of",
            id="dtype-null",
        ),
        pytest.param(
            ["goal=teacher_logits", "soft_targets=full", "soft_targets.dtype=float8"],
            "dtype=float8: must be one of",
            id="dtype-unknown",
        ),
        pytest.param(
            ["subject=distill", "soft_targets=topk", "distill.tau=4"],
            "tau=4: the soft targets are stored at 1, 2, 3, 5; add it to soft_targets.taus, "
            "or set soft_targets=hidden",
            id="topk-tau-not-stored",
        ),
        pytest.param(
            ["subject=distill", "soft_targets=sampled", "soft_targets.taus=[1]"],
            "tau=2: the soft targets are stored at 1; add it to soft_targets.taus",
            id="sampled-tau-not-stored",
        ),
        pytest.param(
            ["subject=distill", "soft_targets=sampled", "distill.module.divergence=reverse"],
            "divergence=reverse.*forward KL alone; set soft_targets=hidden",
            id="sampled-divergence",
        ),
        pytest.param(
            ["subject=distill", "distill.tau=null"], "tau=null.*positive", id="distill-tau-null"
        ),
        pytest.param(
            ["subject=distill", "+distill.alhpa=1"],
            "alhpa: distill has no.*Did you mean alpha",
            id="distill-alhpa-1",
        ),
        pytest.param(
            ["goal=rows.stage2", "+rows.stage2.dev_onein=3"],
            "dev_onein: pack has no such argument; Did you mean dev_one_in",
            id="stage2-dev-onein-3",
        ),
        pytest.param(
            ["goal=rows.stage2", "+rows.stage2.out=x"],
            "out: pack has no such argument",
            id="stage2-out-x",
        ),
        pytest.param(
            ["subject=distill", "+distill.module.divergance=reverse"],
            "module.divergance: DistilledLM has no such setting; Did you mean divergence",
            id="module-divergance-reverse",
        ),
        pytest.param(
            ["subject=distill", "+distill.module.alpha=1"],
            "module.alpha: the stage itself sets alpha",
            id="module-alpha-1",
        ),
        pytest.param(["+module.lr=1"], "module.lr: the stage itself sets lr", id="module-lr-1"),
        pytest.param(
            ["goal=target.sft2", "+optim.sft2.schedule.wramup=0.1"],
            "wramup: ConstantSchedule has no such setting; Did you mean warmup",
            id="schedule-wramup-0-1",
        ),
        pytest.param(
            ["optim.sft2.schedule.warmup=nan"],
            r"warmup=nan: must lie in \[0, 1\]",
            id="schedule-warmup-nan",
        ),
        pytest.param(
            ["goal=target.cpt", "optim.cpt.schedule.final=1.5"],
            r"final=1.5: must lie in \[0, 1\]",
            id="schedule-final-1-5",
        ),
        pytest.param(
            ["optim.sft2.schedule=cosine"],
            "schedule=cosine: must be a schedule",
            id="sft2-schedule-cosine",
        ),
        pytest.param(
            ["+optim.sft2._partial_=true"],
            "_partial_: OptimizerSettings is a settings class",
            id="sft2--partial--true",
        ),
        pytest.param(
            ["optim.sft2.betas=0.9"], r"betas=0.9: must be two numbers", id="sft2-betas-0-9"
        ),
        pytest.param(
            ["optim.sft2.betas=null"], r"betas=null: must be two numbers", id="sft2-betas-null"
        ),
        pytest.param(
            ["optim.sft2.betas=[0.9]"],
            r"betas=\[0.9\]: must be two numbers",
            id="sft2-betas-list-0-9",
        ),
        pytest.param(
            ["subject=distill", "taus=2"], "taus=2: must be a list of temperatures", id="taus-2"
        ),
        pytest.param(
            ["subject=distill", "teacher_logits.probe.taus=[]"],
            r"taus=\[\]: must be a list of temperatures",
            id="probe-taus-list",
        ),
        pytest.param(
            ["subject=distill", "soft_targets=full", "taus=[1,3]"],
            "tau=2: what soft_targets=full loses as float16 is measured at 1, 3 alone; "
            "add it to taus",
            id="taus-list-1-3",
        ),
        pytest.param(
            ["target.sft2._target_=soaes.stages.train.sftt"],
            "has no sftt; Did you mean sft",
            id="sft2--target--soaes-stages-train-sftt",
        ),
        pytest.param(
            ["target.sft2._target_=soaes.stages.trian.sft"],
            "no module soaes.stages.trian",
            id="sft2--target--soaes-stages-trian-sft",
        ),
        pytest.param(
            ["evaluate.model=null"],
            "model=null: evaluate cannot do without model",
            id="evaluate-model-null",
        ),
        pytest.param(
            ["evaluate.model=large"],
            r"model=large: must be a stage, as in 'model=",
            id="evaluate-model-large",
        ),
        pytest.param(
            ["evaluate.split=${target.chat}"],
            "split=.*must be one of train, dev, test",
            id="evaluate-split-target-chat",
        ),
        pytest.param(
            ["data=files", "data.root="], "^data.root=: there is no such folder", id="root-empty"
        ),
        pytest.param(
            ["+runtime.dry=true"], "runtime.dry: there is no.*Did you mean dry", id="runtime-dry"
        ),
        pytest.param(
            ["~runtime.execution"], "runtime.execution=null: must be", id="no-runtime-execution"
        ),
        pytest.param(
            ["runtime.execution.strategy=[ddp]"],
            "strategy=.*must be one of auto",
            id="strategy-list",
        ),
        pytest.param(["sampling=null"], "sampling=null: sampling takes the name", id="group-null"),
        pytest.param(
            ["optim.sft2.schedule._target_=soaes.model.settings.Schedule"],
            "no settings called Schedule",
            id="schedule-base-class",
        ),
        pytest.param(
            ["optim.sft2.schedule._target_=soaes.model.settings.CosineSchedule"],
            "CosineSchedule: it needs final, which is not given; set final too",
            id="cosine-without-final",
        ),
        pytest.param(
            ["target.origin.base.width=99"], "heads=3: must give heads of an even", id="odd-heads"
        ),
        pytest.param(["goal=null"], "goal=null: must name a node; stages: ", id="goal-null"),
        pytest.param(
            ["+max_new_tokens.qaa=3"],
            "max_new_tokens.qaa=3: the tasks are qa, report",
            id="max-new-tokens-qaa-3",
        ),
        pytest.param(
            ["goal=speed", "subject=distill", "~max_new_tokens.report"],
            "prompts.report=2: max_new_tokens.report is missing",
            id="no-max-new-tokens-report",
        ),
        pytest.param(
            ["tokenizer.vocabulary=500"],
            "vocabulary=500: must be a whole number of at least 512",
            id="tokenizer-vocabulary-500",
        ),
        pytest.param(
            ["runtime.store=null"], "runtime.store: every run needs it", id="runtime-store-null"
        ),
        pytest.param(
            ["~runtime.store"], "runtime.store: every run needs it", id="no-runtime-store"
        ),
        pytest.param(["~logger"], "logger.mode: every run needs it", id="no-logger"),
        pytest.param(["data=files"], "^data.root has no value; set it", id="data-files"),
        pytest.param(
            ["data=files", "data.root=/nonexist"],
            "^data.root=/nonexist: there is no such folder",
            id="data-root-nonexist",
        ),
        pytest.param(
            ["runtime.execution=null"],
            "runtime.execution=null: must be the settings",
            id="runtime-execution-null",
        ),
        pytest.param(
            ["runtime.execution.device=null"],
            "device=null: must be cpu or cuda",
            id="execution-device-null",
        ),
        pytest.param(
            ["runtime.execution.device=gpu"],
            "device=gpu: must be cpu or cuda",
            id="execution-device-gpu",
        ),
        pytest.param(
            ["runtime.execution.attention=flash"],
            "attention=flash: must be one of documents, eager",
            id="execution-attention-flash",
        ),
        pytest.param(
            ["runtime.execution.strategy=dpp"],
            "strategy=dpp: must be one of auto, ddp",
            id="execution-strategy-dpp",
        ),
        pytest.param(
            ["runtime.execution.strategy=null"],
            "strategy=null: must be one of auto, ddp",
            id="execution-strategy-null",
        ),
        pytest.param(
            ["runtime.execution.strategy=fsdp"],
            "strategy=fsdp: must be one of auto, ddp",
            id="execution-strategy-fsdp",
        ),
        pytest.param(
            ["runtime.execution.strategy=deepspeed_stage_2"],
            "strategy=deepspeed_stage_2: must be one of auto, ddp, fsdp2, zero3",
            id="execution-strategy-of-lightning",
        ),
        pytest.param(
            [
                "goal=target.sft2",
                "runtime.execution.devices=2",
                "runtime.execution.strategy=ddp",
            ],
            r"devices=2: pretrain runs as one process.*runtime.torchrun=\[pretrain\]",
            id="ranks-that-nobody-starts",
        ),
        pytest.param(
            ["goal=target.sft2", "runtime.execution.devices=2", "runtime.torchrun=[pretrain,cpt]"],
            r"strategy=auto: sft runs as one.*on 2 dev.*runtime.torchrun=\[pretrain,cpt,sft\]",
            id="ranks-that-nobody-starts-of-one-stage",
        ),
        pytest.param(
            ["runtime.torchrun=[evaluate]"],
            "runtime.torchrun=evaluate: must be one of pretrain, instruct, cpt, sft, distill",
            id="ranks-of-a-stage-that-writes-once",
        ),
        pytest.param(
            [
                "scale=paper",
                "runtime=a800x8",
                "goal=target.sft2",
                "optim.sft2.global_batch_size=12",
            ],
            "global_batch_size=12: sft cannot divide it over runtime.execution.devices=8",
            id="batch-that-does-not-divide",
        ),
        pytest.param(
            ["goal=target.sft2", "optim.sft2.precision=bf16-true"],
            "precision=bf16-true: .*weights stay float32: bf16-mixed",
            id="precision-of-weights",
        ),
        pytest.param(
            ["goal=target.sft2", "optim.sft2.precision=16-mixed"],
            "precision=16-mixed: .* not supported on a cpu; set bf16-mixed",
            id="precision-float16-on-a-cpu",
        ),
        pytest.param(
            [
                "scale=paper",
                "runtime=a800x8",
                "goal=target.sft2",
                "optim.sft2.precision=16-mixed",
            ],
            "precision=16-mixed: .* not supported by zero3; set bf16-mixed",
            id="precision-float16-by-zero3",
        ),
        pytest.param(
            ["optim=lora", "goal=target.cpt", "optim.lora.rank=0"],
            "rank=0: must be a whole number of at least 1.*lora=null trains all",
            id="lora-rank-0",
        ),
        pytest.param(
            ["optim=lora", "goal=target.cpt", "optim.lora.target_modules=[]"],
            r"target_modules=\[\]: must be a list of names .*lora=null trains all",
            id="lora-of-nothing",
        ),
        pytest.param(
            ["optim=lora", "goal=target.cpt", "optim.lora.target_modules=[q_proj,lm_head]"],
            "lm_head is the output matrix.*or set lora=null",
            id="lora-of-the-output-matrix",
        ),
        pytest.param(
            ["optim=lora", "goal=target.cpt", "+optim.lora.dropout=0.1"],
            "dropout: LoraSettings has no such setting",
            id="lora-dropout",
        ),
        pytest.param(
            ["optim=lora", "goal=target.base", "+optim.general.lora=${optim.lora}"],
            "lora: pretrain begins with random weights",
            id="lora-of-random-weights",
        ),
        pytest.param(
            [
                "scale=one_gpu",
                "runtime=fsdp2",
                "goal=target.cpt",
                "runtime.execution.devices=4",
            ],
            "lora.rank=64: adapters are not trained in shares by fsdp2; .*strategy=ddp, or optim=p",
            id="lora-in-shares",
        ),
        pytest.param(
            ["teacher_logits=vllm", "subject=distill", "+teacher_logits.k=3"],
            "k: teach_vllm has no such argument",
            id="teacher-k-3",
        ),
        pytest.param(
            ["subject=tokenizer"], "model=tokenizer: evaluate reads the output", id="subject-kind"
        ),
        pytest.param(
            ["goal=distill", "distill.parent=${evaluate}"],
            "parent=evaluate: distill reads the output of one of fetch",
            id="parent-kind",
        ),
        pytest.param(
            ["goal=distill", "distill.rows=${rows.corpus}"],
            "rows: distill must read the rows that teacher_logits was stored over",
            id="rows-of-another-store",
        ),
        pytest.param(["goal=speed"], "target and draft are one model", id="draft-is-the-target"),
        pytest.param(["goal=acceptance"], "target and draft are one model", id="accept-the-target"),
        pytest.param(
            ["goal=speed", "subject=distill", "speed.draft=null"],
            "draft=null: this decoder needs",
            id="draft-null",
        ),
        pytest.param(
            ["subject=distill", "distill.teacher_logits=${rows.stage2}"],
            "teacher_logits=pack: distill reads",
            id="distill-teacher-logits-rows-stage2",
        ),
        pytest.param(
            ["subject=distill", "distill.module.divergence=backward"],
            "divergence=backward: must be one of",
            id="divergence-unknown",
        ),
        pytest.param(
            ["optim=adamw", "optim.sft2.lr=-1"],
            r"optim=\{\.\.\.\} without a _target_: must be OptimizerSettings.*keep its node",
            id="optim-option-at-the-wrong-place",
        ),
        pytest.param(
            ["goal=target.sft2", "~optim.sft2._target_", "optim.sft2.lr=-1"],
            "optim=.*must be OptimizerSettings",
            id="optim-without-target",
        ),
        pytest.param(
            ["target.sft2.optim=null"],
            "optim=null: must be OptimizerSettings",
            id="optim-null",
        ),
        pytest.param(
            ["target.sft2.optim=${packing}"],
            r"optim=\{_target_: .*PackingSettings, \.\.\.\}: must be OptimizerSettings",
            id="optim-of-another-class",
        ),
        pytest.param(
            ["~target.sft2.optim"],
            "sft: it needs optim, which is not given",
            id="optim-deleted",
        ),
        pytest.param(
            ["~optim.sft2.lr"],
            "OptimizerSettings: it needs lr, which is not given",
            id="lr-deleted",
        ),
        pytest.param(
            ["~packing._target_"],
            "packing=.*must be PackingSettings",
            id="packing-without-target",
        ),
        pytest.param(
            ["target.sft2.validation=null"],
            "validation=null: must be ValidationSettings",
            id="validation-null",
        ),
        pytest.param(
            ["goal=teacher_logits", "teacher_logits.probe=null"],
            "probe=null: must be ProbeSettings",
            id="probe-null",
        ),
        pytest.param(
            ["goal=speed", "subject=distill", "~sampling._target_"],
            "sampling=.*must be SamplingSettings",
            id="sampling-without-target",
        ),
        pytest.param(
            ["goal=speed", "subject=distill", "speed.decode=null"],
            "decode=null: must be AutoregressiveSettings or SpeculativeSettings",
            id="decode-null",
        ),
        pytest.param(
            ["goal=teacher_logits", "teacher_logits.soft_targets=null"],
            "soft_targets=null: must be Hidden or Full or",
            id="soft-targets-null",
        ),
        pytest.param(
            ["subject=distill", "distill.module=null"],
            "module=null: must have a _target_ and _partial_",
            id="module-null",
        ),
        pytest.param(
            ["~optim.sft2.schedule._target_"],
            "schedule=.*must be a schedule of soaes.model.settings",
            id="schedule-without-target",
        ),
        pytest.param(
            ["subject=distill", "distill.max_gradient_bias=nan"],
            "max_gradient_bias=nan: must be a number of at least 0",
            id="max-gradient-bias-nan",
        ),
        pytest.param(
            ["subject=distill", "distill.max_gradient_bias=null"],
            "max_gradient_bias=null: must be a number of at least 0",
            id="max-gradient-bias-null",
        ),
        pytest.param(
            ["subject=distill", "distill.max_gradient_bias=no"],
            "max_gradient_bias=no: must be a number of at least 0",
            id="max-gradient-bias-no",
        ),
        pytest.param(
            ["subject=distill", "distill.max_gradient_bias=-0.1"],
            "max_gradient_bias=-0.1: must be a number of at least 0",
            id="max-gradient-bias--0.1",
        ),
        pytest.param(
            ["goal=target.cpt", "rows.corpus.dev_prompts=-1"],
            "dev_prompts=-1: must be a whole number of at least 0",
            id="dev-prompts",
        ),
        pytest.param(
            ["goal=target.cpt", "rows.corpus.dev_one_in=1"],
            "dev_one_in=1: must be a whole number of at least 2",
            id="dev-one-in",
        ),
        pytest.param(
            ["goal=target.cpt", "rows.corpus.replay_seed=-1"],
            "replay_seed=-1: must be a whole number of at least 0",
            id="replay-seed",
        ),
        pytest.param(
            ["goal=target.cpt", "rows.corpus.sources=[corpos]"],
            "sources=corpos: must be one of general, corpus, dialogue, qa",
            id="sources-unknown",
        ),
        pytest.param(
            ["goal=target.cpt", "rows.corpus.sources=corpus"],
            "sources=corpus: must be a list",
            id="sources-a-word",
        ),
        pytest.param(
            ["goal=target.cpt", "rows.corpus.sources=[]"],
            r"sources=\[\]: must name one or more",
            id="sources-empty",
        ),
        pytest.param(
            ["data.categories=finance"],
            "categories=finance: must be a list.*null for all",
            id="categories-a-word",
        ),
        pytest.param(
            ["data.categories=[finance,3]"],
            "categories=3: must be a list of words",
            id="categories-a-number",
        ),
        pytest.param(
            ["evaluate.revision=soon"],
            "revision=soon: must be a whole number of at least 1",
            id="revision-of-a-stage",
        ),
        pytest.param(
            ["subject=distill", "+distill.module.revision=0"],
            "revision=0: must be a whole number of at least 1",
            id="revision-of-an-option",
        ),
        pytest.param(
            ["tokenizer.alphabet_size=-1"],
            "alphabet_size=-1: must be a whole number of at least 0",
            id="alphabet-size",
        ),
        pytest.param(
            ["tokenizer.alphabet_weight=2.5"],
            "alphabet_weight=2.5: must be a whole number of at least 0",
            id="alphabet-weight",
        ),
        pytest.param(
            ["target.origin.base.mlp_ratio=0"],
            "mlp_ratio=0: must be positive",
            id="mlp-ratio",
        ),
        pytest.param(
            ["target.origin.base.position_factor=0"],
            "position_factor=0: must be a whole number of at least 1",
            id="position-factor",
        ),
        pytest.param(
            ["target.origin.base.embedding_std=nan"],
            "embedding_std=nan: must be positive",
            id="embedding-std",
        ),
        pytest.param(
            ["target.origin.base.head_std=-1"],
            "head_std=-1: must be positive",
            id="head-std",
        ),
        pytest.param(
            ["target.origin.base.heads=5", "target.origin.base.kv_heads=1"],
            "heads=5: must divide width=96",
            id="heads",
        ),
        pytest.param(
            ["target.origin.base.kv_heads=2"],
            "kv_heads=2: must divide heads=3",
            id="kv-heads",
        ),
        pytest.param(
            ["data.documents.report_share=1"],
            r"report_share=1: must lie in \[0, 1\)",
            id="report-share",
        ),
        pytest.param(
            ["data.documents.dev_share=-0.1"],
            r"dev_share=-0.1: must lie in \[0, 1\)",
            id="dev-share",
        ),
        pytest.param(
            ["data.documents.test_share=many"],
            r"test_share=many: must lie in \[0, 1\)",
            id="test-share",
        ),
        pytest.param(
            ["data.documents.dev_share=0.6", "data.documents.test_share=0.4"],
            "dev_share=0.6: must be less than 1 together with test_share=0.4",
            id="nothing-to-train-on",
        ),
    ],
)
def test_a_slip_is_one_clear_error_before_anything_is_built(words, message):
    with pytest.raises(ValueError, match=message):
        sweep.jobs(words)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        pytest.param(
            "data.documents.held_out=1", r"held_out=1: must lie in \(0, 1\)", id="held-out"
        ),
        pytest.param(
            "data.documents.split_one_in=1", "split_one_in=1: .*at least 2", id="split-one-in"
        ),
        pytest.param("cleaning.min_chars=null", "min_chars=null: .*at least 0", id="min-chars"),
        pytest.param(
            "domain=none data.select.selection.threshold=0.5",
            "selection.threshold=0.5: the domain has no topics and labels/ no file.*domain=soaes",
            id="threshold-without-relevance",
        ),
        pytest.param(
            "domain=none data.documents.dialogue.min_relevance=0.5",
            "dialogue.min_relevance=0.5: the domain has no topics",
            id="dialogues-without-relevance",
        ),
        pytest.param(
            "+data.read.readers.sql=mine_of_no_one.read_sql",
            "data.read.readers.sql=mine_of_no_one.read_sql: cannot be imported.*PYTHONPATH",
            id="no-module-of-a-reader",
        ),
        pytest.param(
            "+data.read.readers.sql=soaes.data.readers.plain.raed",
            "plain.raed: plain.py has no raed",
            id="no-function-of-a-reader",
        ),
        pytest.param(
            'domain.topics={mine:["国资委"]}',
            r"domain.topics=.*: domain.topics has other entries.*\+domain.topics=.*/NAME.yaml",
            id="a-mapping-that-is-overridden",
        ),
        pytest.param(
            "cleaning.boilerplate={}",
            "cleaning.boilerplate={}: an empty mapping changes nothing of scan code, print and",
            id="an-empty-mapping",
        ),
    ],
)
def test_a_slip_about_a_users_own_files_is_refused_before_anything_is_built(
    option, message, tmp_path
):
    for file in ("corpus/a.txt", "qa/train.jsonl"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text("国资委监管中央企业。", encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        sweep.jobs(["data=files", f"data.root={tmp_path}", *option.split()])


def test_a_folder_without_documents_is_refused_before_anything_is_built(tmp_path):
    (tmp_path / "corpus" / ".git").mkdir(parents=True)
    with pytest.raises(ValueError, match="there is no file in corpus/.*or use data=world"):
        sweep.jobs(["data=files", f"data.root={tmp_path}", "goal=data.documents"])


def test_documents_without_questions_are_refused_before_anything_is_built_or_curated_alone(
    tmp_path,
):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text("国资委监管中央企业。", encoding="utf-8")
    (tmp_path / "dialogue").mkdir()
    (tmp_path / "dialogue" / "a.jsonl").write_text("{}", encoding="utf-8")
    documents = ["data=files", f"data.root={tmp_path}"]
    with pytest.raises(ValueError, match="no file in qa/.*goal=data.select"):
        sweep.jobs([*documents, "goal=data.documents"])
    (job,) = sweep.jobs([*documents, "goal=data.select"])
    assert job.recipe.stage == "select"


def test_a_decision_on_a_question_scores_nothing_again_and_a_label_does(tmp_path):
    for file in ("corpus/a.txt", "qa/train.jsonl", "labels/a.jsonl", "annotation/a.csv"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text("国资委监管中央企业。", encoding="utf-8")

    def names():
        goals = "goal=data.annotated,data.score,data.draw_passages"
        jobs = sweep.jobs(["data=files", f"data.root={tmp_path}", goals])
        return [job.recipe.name for job in jobs]

    annotated, *others = names()
    (tmp_path / "annotation" / "b.csv").write_text("x", encoding="utf-8")
    assert names()[0] != annotated and names()[1:] == others
    annotated, score, drawn = names()
    (tmp_path / "labels" / "b.jsonl").write_text("x", encoding="utf-8")
    assert names()[0] == annotated and names()[1] != score and names()[2] == drawn


def test_a_misnamed_folder_is_refused_before_anything_is_built(tmp_path):
    (tmp_path / "dialogues").mkdir()
    with pytest.raises(ValueError, match="dialogues is not read, dialogue/ is: rename it"):
        sweep.jobs(["data=files", f"data.root={tmp_path}"])


def test_what_must_not_matter_is_not_in_the_recipe():
    (plain,) = sweep.jobs(["subject=distill"])
    (other_execution,) = sweep.jobs(
        [
            "subject=distill",
            "runtime.parallel_stages=7",
            "runtime.execution.micro_batch_size=2",
            "logger=none",
            "distill.tau=2",
        ]
    )
    assert plain.recipe.name == other_execution.recipe.name
    (changed,) = sweep.jobs(["subject=distill", "distill.tau=3"])
    assert changed.recipe.name != plain.recipe.name
    assert set(
        labels.differences(
            changed.recipe.arguments["model"].written, plain.recipe.arguments["model"].written
        )
    ) == {"tau"}


def test_labels_are_the_lineage():
    shown = {
        row.overrides["chain@target"]: labels.label(row.recipe.arguments["model"])
        for row in sweep.jobs(["experiment=table2", "scale=paper"])
    }
    assert shown["full"] == "Qwen2.5-72B + CPT + stage-1 SFT + stage-2 SFT"
    assert shown["cpt_joint"] == "Qwen2.5-72B + CPT + stage-1&2 joint SFT"
    assert shown["instruct"] == "Qwen2.5-72B-Instruct"


def test_sizes_run_from_the_target_to_the_draft():
    for scale in ("smoke", "tiny", "paper"):
        models = {
            row.overrides["size"]: row.recipe.arguments["model"]
            for row in sweep.jobs(["experiment=retention_base", f"scale={scale}"])
        }
        (target,), (draft,) = (
            sweep.jobs([f"goal={model}.base", f"scale={scale}"]) for model in ("target", "draft")
        )
        assert (
            models["large"].name == target.recipe.name and models["small"].name == draft.recipe.name
        )
        for model in models.values():
            assert (
                model.stage == "fetch" or model.arguments["width"] == 32 * model.arguments["heads"]
            ), "a head is 32 wide"
    (small,) = sweep.jobs(["goal=target.sft1", "size=small", "chain@target=instruct_sft2"])
    assert {
        recipe.arguments["layers"]
        for recipe in small.recipe.ancestry().values()
        if recipe.stage == "pretrain"
    } == {1}


def test_replay_changes_the_rows_of_cpt_and_nothing_else():
    (without,), (with_replay,) = (
        sweep.jobs(["goal=target.cpt", f"rows.corpus.replay={share}"]) for share in ("0", "0.25")
    )
    (default,) = sweep.jobs(["goal=target.cpt"])
    assert default.recipe.name == without.recipe.name
    assert set(labels.differences(without.recipe.written, with_replay.recipe.written)) == {"rows"}
    assert set(
        labels.differences(
            without.recipe.arguments["rows"].written, with_replay.recipe.arguments["rows"].written
        )
    ) == {"replay"}


def test_the_retention_tables_rows_are_the_rows_of_its_sweeps():
    rows = list(table_spec.load("retention").rows.values())
    swept = [
        job.overrides
        for name in ("retention", "retention_base")
        for job in sweep.jobs([f"experiment={name}"])
    ]

    def names(row, overrides):
        return row.when.keys() == overrides.keys() and table_spec.matches(row.when, overrides)

    assert len(rows) == len(swept)
    assert all(any(names(row, overrides) for overrides in swept) for row in rows)
    assert all(any(names(row, overrides) for row in rows) for overrides in swept)


@pytest.mark.parametrize(
    "job",
    [
        "seed=3",
        "experiment=table2 scale=tiny chain@target=cpt_joint seed=1 optim.sft2.lr=2e-4 "
        "runtime.store=elsewhere",
        "experiment=search_sft2 evaluate.split=test",
        "experiment=speed5_lookup speed.decode.n=5",
        "scale=paper runtime=a800x8 subject=distill distill.tau=3 distill.alpha=.2 "
        "soft_targets=topk soft_targets.taus=[1,3]",
        "world.entities=7 +world.more=1 subject=draft.chat ~predict_acceptance",
        "optim.sft2={lr:1e-3} seed=2 seed=5 'goal=\"target.cpt\"'",
    ],
    ids=[
        "one-override",
        "experiment",
        "experiment-of-nodes",
        "experiment-of-options",
        "paper-scale",
        "added-and-deleted-keys",
        "repeated-keys",
    ],
)
def test_jobs_are_what_hydra_composes(job):
    job = shlex.split(job)
    with initialize_config_dir(str(compose.CONF), version_base="1.3"):
        wanted = hydra.compose("run", job)
    domains.settle(wanted)  # which reads the pages that it names
    for _ in range(2):  # what is shared with a job before is not changed by it
        assert OmegaConf.to_yaml(compose.compose_job(job)) == OmegaConf.to_yaml(wanted)
        compose.compose_job([*job, "seed=9", "subject=target.base"])


@pytest.mark.parametrize(
    "job",
    [
        "sed=3",
        "optim.sft2.larger=1",
        "experiment=table2 chain@targets=full",
        "seed.more=1",
        "scale=huge",
        "seed=[1",
    ],
    ids=[
        "unknown-key",
        "unknown-key-of-a-node",
        "unknown-group",
        "key-below-a-value",
        "unknown-option",
        "broken-list",
    ],
)
def test_a_slip_is_reported_in_hydras_words(job):
    with (
        initialize_config_dir(str(compose.CONF), version_base="1.3"),
        pytest.raises(HydraException) as refusal,
    ):
        hydra.compose("run", job.split())
    with pytest.raises(
        ValueError, match=re.escape(str(refusal.value).strip().splitlines()[0][:40])
    ):
        compose.compose_job(job.split())


def test_a_declared_name_is_one_function_of_the_project():
    """Recipes hash declared names, so no two things that conf/ names may share one."""
    paths: dict[str, set[str]] = {}
    for file in compose.CONF.rglob("*.yaml"):
        for path in re.findall(r"_target_: ([\w.]+)", file.read_text("utf-8")):
            paths.setdefault(path.rpartition(".")[2], set()).add(path)
    assert len(paths) > 30, "stages and options alike"
    shared = {
        name: sorted(paths_of_name)
        for name, paths_of_name in paths.items()
        if len(paths_of_name) > 1
    }
    assert not shared


def test_every_stage_of_conf_has_its_arguments_checked():
    stages = set()
    for file in compose.CONF.rglob("*.yaml"):
        stages |= set(re.findall(r"_target_: soaes\.stages\.\w+\.(\w+)", file.read_text("utf-8")))
    assert stages == set(validation.STAGE_ARGUMENTS)


def stage_parameters(stage):
    """The parameters of a stage's function that a recipe gives it, by name."""
    for file in (Path(worker.__file__).parents[1] / "stages").glob("*.py"):
        module = importlib.import_module(f"soaes.stages.{file.stem}")
        function = getattr(module, stage, None)
        if getattr(function, "__module__", "") == module.__name__:
            parameters = dict(inspect.signature(function).parameters)
            return {name: parameters[name] for name in parameters if name != "out"}
    raise AssertionError(stage)


@pytest.mark.parametrize("stage", list(validation.STAGE_ARGUMENTS))
def test_every_number_of_a_stage_is_checked_with_the_functions_default(stage):
    numbers = {
        name: parameter.default
        for name, parameter in stage_parameters(stage).items()
        if re.search(r"\b(int|float)\b", str(parameter.annotation))
    }
    checked = validation.STAGE_ARGUMENTS[stage] or dict
    known = inspect.signature(checked).parameters if numbers else {}
    assert {name: known[name].default for name in numbers if name in known} == numbers


@pytest.mark.parametrize("stage", list(validation.STAGE_ARGUMENTS))
def test_no_stage_takes_none_for_settings(stage):
    """As `recipe_checks.SETTINGS` says; one that can do without has a default."""
    annotations = {
        name: str(parameter.annotation)
        for name, parameter in stage_parameters(stage).items()
        if name in recipe_checks.SETTINGS
    }
    assert not [name for name, annotation in annotations.items() if "None" in annotation]


def targets_of_conf():
    """Every function and class of ours that conf/ names."""
    targets = set()
    for file in compose.CONF.rglob("*.yaml"):
        targets |= set(re.findall(r"_target_: (soaes\.[\w.]+)", file.read_text("utf-8")))
    return sorted(target for target in targets if ".settings." not in target)


@pytest.mark.parametrize("target", targets_of_conf())
def test_parameters_read_from_the_source_are_those_of_the_function(target):
    assert signatures.parameters(target) == named_parameters(worker.locate(target))


def named_parameters(function):
    """Those of a function or class, and of the base that a class passes `**kwargs` on to."""
    named = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD and inspect.isclass(function):
            named = named_parameters(function.__base__) | named
        elif parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            required = parameter.default is parameter.empty
            named[name] = signatures.Parameter(str(parameter.annotation), required)
    return named


def test_a_class_without_init_takes_what_its_nearest_base_of_ours_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(signatures, "PACKAGE", tmp_path / "soaes")
    tmp_path.joinpath("soaes").mkdir()
    tmp_path.joinpath("soaes", "bases.py").write_text(
        "import torch\nclass Base(torch.nn.Module):\n"
        "    def __init__(self, a: int, *args, b: str = 'x', **kwargs): ...\n"
    )
    tmp_path.joinpath("soaes", "heirs.py").write_text(
        "from soaes import bases\nfrom soaes.bases import Base as Renamed\n"
        "class First(Renamed): ...\nclass Second(bases.Base): ...\nclass Third(Second): ...\n"
        "class Stranger(torch.nn.Module): ...\n"
    )
    expected = {"a": signatures.Parameter("int", True), "b": signatures.Parameter("str", False)}
    for heir in ("First", "Second", "Third"):
        assert signatures.parameters(f"soaes.heirs.{heir}") == expected
    assert signatures.parameters("soaes.heirs.Stranger") == {}
    with pytest.raises(ValueError, match="soaes.heirs has no Thrid; Did you mean Third"):
        signatures.parameters("soaes.heirs.Thrid")
    with pytest.raises(ValueError, match="no module soaes.hiers; Did you mean soaes.heirs"):
        signatures.parameters("soaes.hiers.Third")


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"overflow": "eror"}, "overflow=eror: must be one of"),
        (
            {"overflo": "drop"},
            "overflo: PackingSettings has no such setting; Did you mean overflow",
        ),
    ],
    ids=["value", "name"],
)
def test_settings_are_checked_wherever_they_stand(node, message):
    settings = {"_target_": "soaes.data.settings.PackingSettings", "revision": 2}
    nested = {"options": [{"packing": settings | {"overflow": "drop"}}]}
    (option,) = recipe_checks.instantiate_settings(nested)["options"]
    assert option["packing"] == PackingSettings(overflow="drop")
    nested["options"][0]["packing"] = settings | node
    with pytest.raises(ValueError, match=message):
        recipe_checks.instantiate_settings(nested)


def test_settings_that_are_not_ours_are_refused():
    with pytest.raises(ValueError, match="not ours"):
        recipe_checks.instantiate_settings({"_target_": "os.settings.system"})
    with pytest.raises(ValueError, match="no settings called Gone"):
        recipe_checks.instantiate_settings({"_target_": "soaes.data.settings.Gone"})


def missing_in(node, target):
    """The parameters of a function or of settings that a node of a recipe does not show."""
    function = worker.locate(target)
    names = set(inspect.signature(function).parameters) - set(recipe_checks.GIVEN_BY_THE_WORKER)
    return sorted(names - set(node))


@pytest.mark.parametrize("words", ["", "teacher_logits=vllm", "data=files", "decode=prompt_lookup"])
def test_no_argument_of_a_stage_or_of_settings_is_missing_in_conf(words, tmp_path):
    """A default that stands in Python alone would be a constant that no recipe shows."""
    for file in ("corpus/a.txt", "qa/train.jsonl"):
        tmp_path.joinpath(file).parent.mkdir()
        tmp_path.joinpath(file).write_text("国资委监管中央企业。" * 9)
    words = [*words.split(), "subject=distill"]
    if "data=files" in words:
        words.append(f"data.root={tmp_path}")
    stages, hidden = set(), set()
    for goal in ("evaluate", "benchmark", "acceptance", "speed", "export"):
        (job,) = sweep.jobs([f"goal={goal}", *words])
        for recipe in job.recipe.ancestry().values():
            stages.add(recipe.stage)
            hidden |= {(recipe.stage, name) for name in missing_in(recipe.arguments, recipe.target)}
            for node in recipe.arguments.values():
                if isinstance(node, dict) and ".settings." in node.get("_target_", ""):
                    added = compose.ADDED_OPTIONS.get(declared_name(node["_target_"]), {})
                    names = set(missing_in(node, node["_target_"])) - set(added)
                    hidden |= {(node["_target_"], name) for name in names}
    assert len(stages) > 12
    # only conf/optim/lora.yaml and conf/backend/vllm.yaml have them: other recipes keep their names
    assert hidden == {
        ("soaes.model.settings.OptimizerSettings", "lora"),
        ("evaluate", "backend"),
        ("benchmark", "backend"),
    }
