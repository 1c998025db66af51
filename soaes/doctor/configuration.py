"""What the command line asks for: overrides, models, tokenizers, extras, vLLM, W&B."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from soaes.data.chat import tokenizer_digest
from soaes.decode.backends import vllm_environment
from soaes.doctor.finding import Case, Check, Finding, fault, fault_of, ok, warning
from soaes.doctor.installation import version_of
from soaes.doctor.plan import Plan
from soaes.pipeline import lineage, model_checks, sweep
from soaes.pipeline.compose import compose_job, recipe_at
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.recipe_checks import check_libraries, check_machines, trains_adapters
from soaes.report.layout import counted


def overrides(case: Case) -> Iterator[Finding]:
    """Tell what the command line would run, or why it is refused."""
    if isinstance(case.outcome, Exception):
        yield fault_of("overrides", case.outcome)
        unjudged = [*OF_JOBS, *(OF_THE_RUNTIME if case.runtime is None else [])]
        value = f"since they are refused, nothing is judged of {', '.join(unjudged)}"
        yield warning("overrides", value, "correct them and run the doctor again")
        return
    plan = case.outcome
    for remark in sweep.check_overrides(plan.jobs):
        value, _, remedy = remark.rpartition("; ")
        yield warning("overrides", value, remedy)
    words = " ".join(case.words) or "no overrides"
    jobs, stages = counted(len(plan.jobs), "job"), counted(len(plan.stages), "stage")
    yield ok("overrides", f"{words}: {jobs} of {stages}, {len(plan.todo)} to run")


def given_models(case: Case) -> Iterator[Finding]:
    """Check that models which were not trained here can be used as asked, as soaes.run does."""
    plan = case.plan
    if plan is None:
        return
    model_checks.check(plan.store, plan.recipes, plan.runtime)
    if plan.runtime.models:
        folders = ", ".join(plan.runtime.models.values())
        yield ok("models", f"{folders} can be used as asked")
    fetched = model_checks.fetched(plan.recipes)
    if not fetched:
        return
    there = [recipe for recipe in fetched if plan.store.holds(recipe.name)]
    value = f"{len(there)} of {len(fetched)} are fetched and can be used as asked"
    if len(there) < len(fetched):
        value += ", the others are fetched and checked before anything is trained"
    yield ok("models", value)


def tokenizers(case: Case) -> Iterator[Finding]:
    """Tell whether target and draft have one tokenizer, as drafting and distillation need."""
    plan = case.plan
    if plan is None:
        return
    cfg = compose_job(plan.jobs[0].arguments)
    target, draft = (lineage.tokenizer(recipe_at(cfg, f"{side}.chat")) for side in SIDES)
    if target is None or draft is None:
        yield ok("tokenizers", "the recipes do not tell whose target and draft have")
    elif target.name == draft.name:
        yield ok("tokenizers", f"target and draft share {target.name}")
    elif "tokenizer" in (target.stage, draft.stage):
        yield fault("tokenizers", f"target has {target.name}, draft has {draft.name}", ONE_ORIGIN)
    else:
        yield _given_tokenizers(plan, target, draft)


SIDES = ("target", "draft")
ONE_ORIGIN = "train both here, or name target.model and draft.model"


def _given_tokenizers(plan: Plan, target: Recipe, draft: Recipe) -> Finding:
    """Compare the tokenizers of two models that were not trained here."""
    models = [model_checks.given(plan.store, recipe, plan.runtime) for recipe in (target, draft)]
    titles = []
    for recipe, model in zip((target, draft), models):
        titles.append(model.title if model is not None else recipe.arguments["repo"])
    both = " and ".join(titles)
    known = [tokenizer_digest(model.folder) for model in models if model is not None]
    if len(known) < 2:
        value = f"of {both}, known once they are fetched"
        remedy = "soaes.run compares them before anything is trained"
        return warning("tokenizers", value, remedy)
    if known[0] != known[1]:
        remedy = "set draft.model to a model with the target's tokenizer"
        return fault("tokenizers", f"{both} differ", remedy)
    return ok("tokenizers", f"{both} have the same")


def extras(case: Case) -> Iterator[Finding]:
    """Look for the libraries that the runtime asks for beyond the required ones."""
    if case.runtime is None:
        return
    execution = case.runtime.execution
    if execution.parallelism == "zero3":
        yield _extra("deepspeed", "deepspeed", "set runtime.execution.strategy=fsdp2")
    if execution.attention == "flash_attention_2":
        yield _extra("flash-attn", "cuda", "set runtime.execution.attention=sdpa")
    if case.plan is not None and trains_adapters(case.plan.store, case.plan.recipes):
        yield _extra("peft", "lora", "optim=phases, which trains all weights")


def _extra(distribution: str, extra: str, otherwise: str) -> Finding:
    version = version_of(distribution)
    if version is not None:
        return ok(distribution, version)
    remedy = f"`python -m pip install '.[{extra}]'`, or {otherwise}"
    return fault(distribution, "not installed, and the runtime asks for it", remedy)


def vllm(case: Case) -> Iterator[Finding]:
    """Look at vLLM's environment, and whether anything to run needs it."""
    plan = case.plan
    if plan is None:
        return
    check_libraries(plan.store, plan.recipes, plan.runtime)
    interpreter = vllm_environment.python()
    if vllm_environment.is_installed():
        yield ok("vLLM", f"{vllm_environment.library('vllm')}, {interpreter}")
    elif interpreter.exists() or vllm_environment.VLLM in os.environ:
        try:
            vllm_environment.check_installed("leave it out: nothing here needs it")
        except ValueError as error:
            refusal = fault_of("vLLM", error)
            yield warning("vLLM", refusal.value, refusal.remedy)
    else:
        yield ok("vLLM", "not installed, and not needed; `make vllm` installs it for backend=vllm")


def speeds(case: Case) -> Iterator[Finding]:
    """Tell whether the machine of the speeds to measure is known."""
    if case.plan is not None:
        check_machines(case.plan.store, case.plan.recipes)
        yield ok("speed", "each speed to measure names its machine")


def wandb(case: Case) -> Iterator[Finding]:
    """Tell where W&B's runs go."""
    if case.runtime is None:
        return
    logger = case.runtime.logger
    chosen = " (WANDB_MODE)" if os.environ.get("WANDB_MODE") else ""
    if not logger.enabled or logger.folder is None:
        yield ok("W&B", f"disabled{chosen}; curves.jsonl in each stage's folder has the curves")
        return
    folder = Path(logger.folder).absolute()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        value = f"{logger.mode}{chosen}, {folder} cannot be written"
        yield warning("W&B", value, "set logger.folder=FOLDER, or logger=none")
        return
    runs = len(list(folder.glob("wandb/offline-run-*")))
    value = f"{logger.mode}{chosen}, project {logger.project}, folder {folder}"
    if runs:
        upload = f"`wandb sync {folder}/wandb/offline-run-*`"
        value += f", {counted(runs, 'offline run')}: {upload} uploads them"
    yield ok("W&B", value)


CHECKS: dict[str, Check] = {
    "overrides": overrides,
    "models": given_models,
    "tokenizers": tokenizers,
    "extras": extras,
    "vLLM": vllm,
    "speed": speeds,
    "W&B": wandb,
}
# what is judged by the stages to run
OF_JOBS = ("memory", "fit", "disk", "models", "tokenizers", "vLLM", "speed")
OF_THE_RUNTIME = ("cores", "GPU", "extras", "W&B")
