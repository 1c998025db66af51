"""Check a recipe before anything is built: names, kinds and ranges of all that a stage is given.

Names and kinds are those of the function's own parameters, read from its source. Ranges are those
of the settings (modules called `settings`) and of `validation.STAGE_ARGUMENTS`. Imports no torch.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import re
from collections.abc import Iterable
from dataclasses import is_dataclass
from importlib.util import find_spec
from typing import Any, get_args

from soaes.data.annotation.settings import AdoptionSettings
from soaes.data.curation import sources
from soaes.data.curation.settings import (
    CleaningSettings,
    DeduplicationSettings,
    DomainSettings,
    PairDrawing,
    PassageDrawing,
    SelectionSettings,
)
from soaes.data.settings import DialogueSettings, PackingSettings
from soaes.data.synthesis.settings import (
    AskingSettings,
    EndpointAuthor,
    PromptSettings,
    RuleAuthor,
    ScreenSettings,
    TransformersAuthor,
)
from soaes.decode.backends import vllm_environment
from soaes.decode.settings import DecoderSettings, SamplingSettings, speculation_spec
from soaes.model.settings import (
    OptimizerSettings,
    ProbeSettings,
    SoftTargets,
    ValidationSettings,
    check_probed,
)
from soaes.pipeline import labels, lineage, model_checks, provenance, signatures, validation
from soaes.pipeline.recipe import Recipe, declared_name
from soaes.pipeline.runtime import SHARDED, TRAINING_STAGES, Execution, Runtime
from soaes.pipeline.signatures import Parameter
from soaes.pipeline.store import Store
from soaes.pipeline.validation import nearest

# The settings that a stage's argument of a name holds, whichever stage it is. No stage takes None
# for them: one that can do without has a default, and its node can be deleted.
SETTINGS: dict[str, tuple[type, ...]] = {
    "optim": (OptimizerSettings,),
    "packing": (PackingSettings,),
    "dialogue": (DialogueSettings,),
    "cleaning": (CleaningSettings,),
    "deduplication": (DeduplicationSettings,),
    "domain": (DomainSettings,),
    "selection": (SelectionSettings,),
    "drawing": (PassageDrawing, PairDrawing),
    "prompt": (PromptSettings,),
    "author": (EndpointAuthor, RuleAuthor, TransformersAuthor),
    "asking": (AskingSettings,),
    "screens": (ScreenSettings,),
    "adoption": (AdoptionSettings,),
    "validation": (ValidationSettings,),
    "probe": (ProbeSettings,),
    "sampling": (SamplingSettings,),
    "decode": tuple(DecoderSettings.__subclasses__()),
    "soft_targets": get_args(SoftTargets),
}

# The arguments that hold a function or class of which some arguments are bound, and what a stage
# gives it besides; `distill` gives its module more.
PARTIALS = {
    "module": (
        "model",
        "lr",
        "schedule",
        "betas",
        "weight_decay",
        "steps",
        "grad_clip",
        "adamw",
    ),
    "backend": ("folders", "settings"),
}
GIVEN_BY_DISTILL = ("teacher_store", "alpha", "tau")
GIVEN_TO_MODEL_BACKEND = ("model", "execution")  # by evaluate and benchmark

# The stages whose output an argument of a name reads, whichever stage it is an argument of.
MODEL_STAGES = (*lineage.GIVEN, *TRAINING_STAGES, "export")
PARENTS: dict[str, tuple[str, ...]] = {
    "documents": ("world", "files"),
    "tokenizer": ("tokenizer", *MODEL_STAGES),
    "rows": ("pack",),
    "parent": MODEL_STAGES,
    "model": MODEL_STAGES,
    "target": MODEL_STAGES,
    "draft": MODEL_STAGES,
    "like": MODEL_STAGES,
    "teacher_logits": ("teach", "teach_vllm"),
    "target_trace": ("target_trace",),
    "prediction": ("predict_acceptance",),
    "read": ("read",),
    "scores": ("score",),
    "held_out_questions": ("held_out_questions",),
    "labels": ("labels",),
    "deduplicated": ("deduplicate",),
    "calls": ("ask",),
    "annotated": ("annotated",),
    "adopted": ("adopt",),
}
# The steps of soaes.stages.corpus, in their order: `documents` of these and of `files`.
CORPUS_STEPS = ("read", "clean", "deduplicate", "decontaminate", "score", "select")
# Other stages whose `documents` are those of a step.
READING_CORPUS = ("files", "ask", "screen", "adopt", "draw_passages", "labels", "draw_pairs")

# The stages that may have a model run by vLLM; without a backend it is transformers'.
ANSWERING = ("evaluate", "benchmark")

# The parameters of a stage that no recipe holds: the worker gives them.
GIVEN_BY_THE_WORKER = (
    "execution",
    "root",
    "models",
    "endpoint",
    "call_log",
    "tracker",
    "out",
)


def check_recipe(recipe: Recipe) -> None:
    """Check a stage's arguments and options, before anything is built.

    Raises:
        ValueError: An argument is unknown or missing, a value is out of its range or of another
            kind, a `_target_` is not the project's, or a node is not what the argument takes.
    """
    parameters = _parameters(recipe.target)
    _check_names(recipe, parameters)
    _check_targets(recipe)
    validation.check_stage(recipe.stage, recipe.arguments)
    _check_settings(recipe)
    for name in PARTIALS:
        if name in recipe.arguments:
            _check_partial(recipe.stage, name, recipe.arguments[name])
    for name, value in recipe.arguments.items():
        if name in parameters:
            _check_kind(recipe.stage, name, value, parameters[name].annotation)
    _check_tokenizers(recipe)
    if recipe.stage == "pretrain" and _lora(recipe) is not None:
        raise ValueError(
            "optim.general.lora: pretrain begins with random weights, which must all "
            "be trained; set it to null, or leave it out"
        )
    if recipe.stage in ("select", "files"):
        _check_relevance(recipe)
    if recipe.stage == "distill":
        _check_distillation(recipe.arguments)
    if recipe.stage in ("acceptance", "speed"):
        _check_draft(recipe)
        _check_prediction(recipe)
    if recipe.stage == "speed":
        _check_backend(recipe)
    if recipe.stage in ANSWERING and is_cut_by_vllm(recipe):
        dtype = recipe.arguments["backend"].get("dtype", "float32")
        validation.check_one_of("backend.dtype", dtype, validation.DTYPES)


def _check_relevance(recipe: Recipe) -> None:
    """Check that a limit of relevance has a relevance: topics of the domain, or labels."""
    if recipe.stage == "select":
        name, limit = "selection.threshold", recipe.arguments["selection"].get("threshold")
        scored = recipe.arguments["documents"]
    else:
        dialogue = recipe.arguments.get("dialogue", {})
        name, limit = "dialogue.min_relevance", dialogue.get("min_relevance")
        scored = recipe.arguments["scores"]
    if limit is None or scored.stage != "score":
        return
    has_labels = scored.arguments["labels"].arguments["digest"] != sources.NO_FILES
    if not has_labels and not scored.arguments["domain"].get("topics"):
        raise ValueError(
            f"{name}={limit}: the domain has no topics and labels/ no file, so that no text has a "
            "relevance; set domain=soaes or a domain of your own, give labels/, or set it to null"
        )


def check_questions(recipe: Recipe, root: str | None) -> None:
    """Check that there may be questions: files in the user's folder, or some that people adopted.

    Raises:
        ValueError: There are none. The stage itself would say so after all documents are curated.
    """
    if recipe.stage != "files" or recipe.arguments.get("adopted") or root is None:
        return
    if not sources.listing(root)["qa"]:
        raise ValueError(
            f"data.root={root}: there is no file in qa/, which holds the questions to fine-tune "
            "on; put qa/train.jsonl there, or curate the documents alone with goal=data.select"
        )


def check_execution(recipe: Recipe, runtime: Runtime) -> None:
    """Check that a stage, if it trains or runs vLLM, can be run as the runtime says.

    Raises:
        ValueError: It would wait for ranks that nobody starts, its batch does not divide over
            them, its precision would be another one on this device or under this strategy, or
            vLLM does not read its model on this device.
    """
    _check_vllm_reads(recipe, runtime.execution)
    if recipe.stage not in TRAINING_STAGES:
        return
    execution = runtime.execution
    devices = execution.devices
    started = ",".join([*runtime.torchrun, recipe.stage])
    if execution.parallelism in SHARDED and recipe.stage not in runtime.torchrun:
        raise ValueError(
            f"runtime.execution.strategy={execution.strategy}: {recipe.stage} runs as one process "
            f"on {devices} devices, and shares need ranks; set 'runtime.torchrun=[{started}]', or "
            "devices=1 with strategy=auto"
        )
    if devices > 1 and recipe.stage not in runtime.torchrun:
        raise ValueError(
            f"runtime.execution.devices={devices}: {recipe.stage} runs as one process, which would "
            f"wait for the others for ever; set 'runtime.torchrun=[{started}]', or devices=1"
        )
    optim = instantiate_settings(recipe.arguments["optim"])
    if optim.global_batch_size % devices:
        raise ValueError(
            f"global_batch_size={optim.global_batch_size}: {recipe.stage} cannot divide it over "
            f"runtime.execution.devices={devices}; set either to divide the other"
        )
    is_sharded = execution.parallelism in SHARDED
    if is_sharded and optim.lora is not None:
        raise ValueError(
            f"lora.rank={optim.lora.rank}: adapters are not trained in shares by "
            f"{execution.parallelism}; set runtime.execution.strategy=ddp, or optim=phases, which "
            "trains all weights"
        )
    if optim.precision == "16-mixed" and (execution.device == "cpu" or is_sharded):
        where = "on a cpu" if execution.device == "cpu" else f"by {execution.parallelism}"
        raise ValueError(
            f"precision=16-mixed: float16 with a loss scale is not supported {where}; "
            "set bf16-mixed, which needs none"
        )


def _lora(recipe: Recipe) -> dict[str, Any] | None:
    """Return the node of the adapters that a training stage trains; None if it trains all."""
    optim = recipe.arguments.get("optim")
    node: dict[str, Any] | None = optim.get("lora") if isinstance(optim, dict) else None
    return node


def _check_vllm_reads(recipe: Recipe, execution: Execution) -> None:
    """Check that vLLM reads the models of our own that a stage gives it, and cuts them so."""
    device = execution.device
    if is_cut_by_vllm(recipe):
        names, way_out = ["model"], _without_vllm(recipe)
    elif is_timed_in_vllm(recipe):
        names, way_out = ["target"], "backend=native"
        if instantiate_settings(recipe.arguments["decode"]).uses_draft:
            names.append("draft")
        device = recipe.arguments.get("device", "cpu")
    else:
        return
    for name in names:
        model = lineage.origin(recipe.arguments[name])
        if model.stage == "pretrain":
            width, heads = model.arguments["width"], model.arguments["heads"]
            vllm_environment.check_heads(name, width, heads, device, way_out)
            if is_cut_by_vllm(recipe):
                config = {
                    "num_attention_heads": heads,
                    "num_key_value_heads": model.arguments["kv_heads"],
                    "intermediate_size": int(model.arguments.get("mlp_ratio", 3) * width),
                }
                vllm_environment.tensor_parallel(name, config, execution)


def is_cut_by_vllm(recipe: Recipe) -> bool:
    """Tell whether vLLM runs a stage's model, cut over the devices of a stage."""
    if recipe.stage in ANSWERING:
        return "backend" in recipe.arguments and _backend(recipe) == "vllm"
    return recipe.stage == "teach_vllm"


def is_timed_in_vllm(recipe: Recipe) -> bool:
    """Tell whether vLLM decodes in `speed`: an engine with speculation beside one without."""
    is_speed = recipe.stage == "speed" and "backend" in recipe.arguments
    return is_speed and _backend(recipe) == "vllm"


def _without_vllm(recipe: Recipe) -> str:
    """The option under which another library runs a stage that vLLM runs."""
    return "backend=native" if recipe.stage in ANSWERING else "teacher_logits=transformers"


def trains_adapters(store: Store, recipes: Iterable[Recipe]) -> bool:
    """Tell whether a stage that is not built yet trains adapters."""
    for recipe in recipes:
        for name, ancestor in recipe.ancestry().items():
            if _lora(ancestor) is not None and not store.holds(name):
                return True
    return False


def check_peft(store: Store, recipes: Iterable[Recipe]) -> None:
    """Check that peft is there if adapters are to be trained; a plan needs none.

    Raises:
        ValueError: It is not installed.
    """
    if find_spec("peft") is None and trains_adapters(store, recipes):
        raise ValueError(
            "optim=lora: adapters are trained by peft, which is not installed; "
            "`python -m pip install '.[lora]'` installs it, or optim=phases trains all weights"
        )


def check_libraries(store: Store, recipes: Iterable[Recipe], runtime: Runtime) -> None:
    """Check that the libraries of all that is to be built are there, and cut its models.

    What vLLM has stored before needs none of it. A speed is valid for one library alone, so
    `check_recipe` looks for that one.

    Raises:
        ValueError: vLLM is to read a model and is not installed, or cannot cut it as the runtime
            says.
    """
    for recipe in recipes:
        for name, ancestor in recipe.ancestry().items():
            if not is_cut_by_vllm(ancestor) or store.holds(name):
                continue
            vllm_environment.check_installed(_without_vllm(ancestor))
            origin = lineage.origin(ancestor.arguments["model"])
            model = model_checks.given(store, origin, runtime)
            if model is not None:
                vllm_environment.tensor_parallel(model.title, model.config, runtime.execution)


def check_machines(store: Store, recipes: Iterable[Recipe]) -> None:
    """Check that each speed that is to be measured says what it is valid for.

    Raises:
        ValueError: It is to be measured on a GPU of which nothing is known.
    """
    for recipe in recipes:
        for name, ancestor in recipe.ancestry().items():
            if ancestor.arguments.get("machine") == provenance.NO_GPU and not store.holds(name):
                raise ValueError(
                    "runtime.execution.device=cuda: a speed is valid for one kind of GPU, and "
                    "nvidia-smi names none here; run the command where the GPU is, or set "
                    "speed.machine to the name that nvidia-smi gives it there"
                )


# ------------------------------------------------------------------------- names and kinds


def _parameters(target: str) -> dict[str, Parameter]:
    """Return the parameters of a stage's function that a recipe gives it."""
    parameters = signatures.parameters(validation.check_target(target))
    return {name: parameters[name] for name in parameters if name not in GIVEN_BY_THE_WORKER}


def _check_names(recipe: Recipe, parameters: dict[str, Parameter]) -> None:
    """Check that a stage is given all that it needs, and nothing that it does not know."""
    for name in recipe.arguments:
        if name not in parameters and name != "revision":  # which is hashed and not passed on
            advice = nearest(name, list(parameters))
            raise ValueError(f"{name}: {recipe.stage} has no such argument; {advice}")
    for name, parameter in parameters.items():
        if parameter.required and name not in recipe.arguments:
            raise ValueError(f"{recipe.stage}: it needs {name}, which is not given; set {name} too")


def _check_targets(recipe: Recipe) -> None:
    """Check that every `_target_` of a stage's options is ours, and every `revision`."""
    validation.check_targets(recipe.written)
    for key, value in labels.flatten(recipe.written).items():
        is_revision = key.rpartition(".")[2] == "revision"
        if is_revision and recipe.stage != "fetch":  # there it is a commit
            validation.check_revision(value)


def _check_kind(stage: str, name: str, value: Any, annotation: str) -> None:
    """Check that a parameter that takes a folder is given a stage, and null where it may be."""
    words = re.findall(r"\w+", annotation)
    optional = "None" in words or "Any" in words
    if value is None and not optional:
        raise ValueError(f"{name}=null: {stage} cannot do without {name}; set it again")
    if value is not None and "Path" in words and not isinstance(value, Recipe):
        raise ValueError(
            f"{name}={_in_short(value)}: must be a stage, as in '{name}=${{target.chat}}'"
        )
    if isinstance(value, Recipe) and "Path" not in words:
        raise ValueError(f"{name}: must be {annotation}, and {value.stage} is a stage")
    if isinstance(value, Recipe):
        _check_parent(stage, name, value.stage)
    is_option = isinstance(value, dict) and "_target_" in value
    if is_option and name not in SETTINGS and name not in PARTIALS:
        raise ValueError(
            f"{name}={_in_short(value)}: {stage} takes no option here, but {annotation}; "
            "keep the value of conf/"
        )
    if annotation == "bool":
        validation.check_flag(name, value)


def _check_parent(stage: str, name: str, parent: str) -> None:
    """Check that a stage can read the output of a parent under this name."""
    allowed = PARENTS.get(name, (parent,))
    if name == "documents" and stage in (*CORPUS_STEPS, *READING_CORPUS):
        allowed = CORPUS_STEPS
    if parent not in allowed:
        expected = ", ".join(allowed)
        raise ValueError(f"{name}={parent}: {stage} reads the output of one of {expected}")


# -------------------------------------------------------------------- settings and partials


def _check_settings(recipe: Recipe) -> None:
    """Check that settings instantiate, and that each is of the class that its argument takes."""
    for name, node in recipe.arguments.items():
        classes = SETTINGS.get(name)
        is_settings = isinstance(node, dict) and "_target_" in node
        if classes is not None and not is_settings:
            raise _not_the_settings(name, node, classes)
        settings = instantiate_settings(node)
        if classes is not None and not isinstance(settings, classes):
            raise _not_the_settings(name, node, classes)


def _not_the_settings(name: str, node: Any, classes: tuple[type, ...]) -> ValueError:
    wanted = " or ".join(each.__name__ for each in classes)
    return ValueError(
        f"{name}={_in_short(node)}: must be {wanted} (settings are known by their _target_); "
        "keep its node of conf/ whole and change its values alone"
    )


def _check_partial(stage: str, name: str, node: Any) -> None:
    """Check a function or class of which some arguments are bound.

    It must take what the stage gives it, and need nothing else. The arguments that may be bound are
    the others; what is bound of those that the stage gives would count for nothing.
    """
    is_partial = isinstance(node, dict) and "_target_" in node and node.get("_partial_") is True
    if not is_partial:
        raise ValueError(
            f"{name}={_in_short(node)}: must have a _target_ and _partial_: true; "
            "keep its node of conf/ whole and change its values alone"
        )
    target = node["_target_"]
    parameters = signatures.parameters(validation.check_target(target))
    given = PARTIALS[name]
    if (stage, name) == ("distill", "module"):
        given += GIVEN_BY_DISTILL
    elif name == "backend" and stage in ANSWERING:
        given = GIVEN_TO_MODEL_BACKEND
    untaken = [key for key in given if key not in parameters]
    lacking = [key for key in parameters if parameters[key].required and key not in given]
    if untaken or lacking:
        reason = f"does not take {', '.join(untaken)}" if untaken else ""
        reason = reason or f"needs {', '.join(lacking)}"
        raise ValueError(
            f"{name}={_in_short(node)}: not a {name} of {stage}, {declared_name(target)} {reason}; "
            "keep its node of conf/ and change its values alone"
        )
    bindable = [key for key in parameters if key not in given]
    for key, value in node.items():
        if key in ("_target_", "_partial_", "revision"):
            continue
        if key not in parameters:
            advice = nearest(key, bindable)
            raise ValueError(f"{name}.{key}: {declared_name(target)} has no such setting; {advice}")
        if key not in bindable:
            raise ValueError(f"{name}.{key}: the stage itself sets {key}; leave it out")
        _check_kind(declared_name(target), f"{name}.{key}", value, parameters[key].annotation)


def instantiate_settings(value: Any) -> Any:
    """Instantiate every settings node in a resolved value, innermost first.

    A settings node is one whose `_target_` lies in a module called `settings`: a frozen dataclass,
    free of torch, that checks itself when it is created. Parents, and options that are no settings,
    are passed on as they are.

    Raises:
        ValueError: The settings refuse a value, lack one, or know no argument of that name.
    """
    if isinstance(value, list):
        return [instantiate_settings(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    plain = {key: instantiate_settings(inner) for key, inner in value.items()}
    target = str(value.get("_target_", ""))
    module_name, _, class_name = target.rpartition(".")
    if declared_name(module_name) != "settings":
        return plain
    validation.check_target(target)
    settings: Any = getattr(importlib.import_module(module_name), class_name, None)
    is_settings_class = is_dataclass(settings)
    if not is_settings_class:
        raise ValueError(f"_target_: {module_name} has no settings called {class_name}")
    if plain.get("_partial_", False) is not False:
        raise ValueError(f"_partial_: {class_name} is a settings class; leave _partial_ out")
    known = inspect.signature(settings).parameters
    arguments = {}
    for key, inner in plain.items():
        if key in known:
            arguments[key] = inner
        elif key not in ("_target_", "_partial_", "revision"):  # these are not passed on
            advice = nearest(key, list(known))
            raise ValueError(f"{key}: {class_name} has no such setting; {advice}")
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in arguments:
            raise ValueError(f"{class_name}: it needs {key}, which is not given; set {key} too")
    return settings(**arguments)


def _in_short(value: Any) -> str:
    """Return a node's value for an error: of a mapping its `_target_`, or that it has none."""
    if isinstance(value, dict):
        target = value.get("_target_")
        return f"{{_target_: {target}, ...}}" if target else "{...} without a _target_"
    return "null" if value is None else str(value)


def _check_draft(recipe: Recipe) -> None:
    """Check that a decoder with a draft model has one, and another than the target."""
    settings = instantiate_settings(recipe.arguments["decode"])
    draft = recipe.arguments.get("draft")
    if not settings.uses_draft:
        return
    if draft is None:
        raise ValueError("draft=null: this decoder needs a draft model; set speed.draft")
    if draft.name == recipe.arguments["target"].name:
        raise ValueError(
            f"draft={draft.name}: target and draft are one model; set subject=distill or "
            "subject=draft.chat, or decode=autoregressive"
        )


def _check_prediction(recipe: Recipe) -> None:
    """Check that the prediction that is reported beside a decoder covers its block size."""
    prediction = recipe.arguments.get("prediction")
    n = instantiate_settings(recipe.arguments["decode"]).n
    if prediction is not None and prediction.arguments["max_n"] < n:
        raise ValueError(
            f"n={n}: predict_acceptance.max_n={prediction.arguments['max_n']} predicts no block of "
            f"so many drafted tokens; set predict_acceptance.max_n={n}, or a lower speed.decode.n"
        )


def _check_backend(recipe: Recipe) -> None:
    """Check that another library, if one is timed, is there and has such a decoder."""
    backend = _backend(recipe)
    if backend == "native":
        return
    spec = speculation_spec(instantiate_settings(recipe.arguments["decode"]), backend)
    if backend == "vllm":
        sampling = instantiate_settings(recipe.arguments["sampling"])
        vllm_environment.check_backend(spec, sampling, recipe.arguments.get("device", "cpu"))


def _backend(recipe: Recipe) -> str:
    """The name of the library that a backend is, of open_NAME for a pair and open_NAME_model."""
    function = declared_name(recipe.arguments["backend"]["_target_"])
    return function.removeprefix("open_").removesuffix("_model")


def _check_tokenizers(recipe: Recipe) -> None:
    """Check that all that a stage reads holds ids of one tokenizer.

    Two models that were not trained here may share one: `model_checks` compares them.
    """
    makers = lineage.tokenizers(recipe)
    for (name, maker), (other_name, other) in itertools.combinations(makers.items(), 2):
        one_is_ours = "tokenizer" in (maker.stage, other.stage)
        if one_is_ours and maker.name != other.name:
            parent, other_parent = recipe.arguments[name], recipe.arguments[other_name]
            raise ValueError(
                f"{recipe.stage}: {name}={parent.name} holds token ids of {maker.name}, and "
                f"{other_name}={other_parent.name} those of {other.name}: the same ids would be "
                "other words; build both with one tokenizer, as in "
                "'tokenizer=${target.origin.base}'"
            )


# ------------------------------------------------------------------------------ distillation


def _check_distillation(arguments: dict[str, Any]) -> None:
    """Check that the stored soft targets support the loss, and were measured at its tau."""
    teacher = arguments["teacher_logits"]
    if teacher.arguments["rows"].name != arguments["rows"].name:
        raise ValueError(
            "rows: distill must read the rows that teacher_logits was stored over; "
            "set distill.rows and teacher_logits.rows to the same stage"
        )
    stored = instantiate_settings(teacher.arguments["soft_targets"])
    tau = arguments["tau"]
    stored.check_supports(tau, arguments["module"].get("divergence", "forward"))
    probe = ProbeSettings()
    if "probe" in teacher.arguments:
        probe = instantiate_settings(teacher.arguments["probe"])
    check_probed(stored, probe, tau)
