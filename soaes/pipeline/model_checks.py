"""Check models that were not trained here against what is to be done with them.

A model's config.json tells what it cannot be used for: native decoding of another family, hidden
states under a soft cap, packed rows in linear attention. It is known as soon as the model is
fetched, and of a user's own folder at once, while the stage that would refuse it may come days
later. Imports no torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from soaes.decode.families import NATIVE_FAMILIES
from soaes.model import folder as model_folder
from soaes.model.settings import LAYER_MATRICES
from soaes.pipeline import lineage
from soaes.pipeline.recipe import Recipe, declared_name
from soaes.pipeline.runtime import TRAINING_STAGES, Runtime
from soaes.pipeline.store import Store

if TYPE_CHECKING:
    from soaes.data.chat import ChatFormat

NATIVE = ("target_trace", "predict_acceptance", "acceptance")  # and `speed`, by its backend

OUR_FAMILY = "qwen2"  # of a model that is pre-trained here

# The arguments under which a stage holds models.
MODEL_ARGUMENTS = ("parent", "model", "target", "draft")


def fetched(recipes: Iterable[Recipe]) -> list[Recipe]:
    """Return the published models among the ancestors of some goals."""
    found = {}
    for recipe in recipes:
        for name, ancestor in recipe.ancestry().items():
            if ancestor.stage == "fetch":
                found[name] = ancestor
    return list(found.values())


class Given(NamedTuple):
    """A model that was not trained here, and can be read."""

    name: str  # of its recipe, which changes with its files
    folder: Path
    title: str  # as the user knows it
    chat_format: str  # as the user chose it; empty for a model that the scale names: ChatML

    @property
    def config(self) -> dict[str, Any]:
        """The config of its language model."""
        return model_folder.text_config(self.folder)


def given(store: Store, recipe: Recipe, runtime: Runtime) -> Given | None:
    """Return a model that was fetched or is the user's own, if its files are there.

    Args:
        store: Where fetched models lie.
        recipe: The stage that its weights or its tokenizer began with, see `lineage`.
        runtime: It knows the folders of the user's models.
    """
    choice = recipe.arguments.get("chat_format", "")
    if recipe.stage == "local_model":
        folder = runtime.models.get(recipe.arguments["content"]["digest"])
        if folder is not None:
            return Given(recipe.name, Path(folder).expanduser(), folder, choice)
    if recipe.stage in lineage.GIVEN and store.holds(recipe.name):
        title = recipe.arguments.get("repo", recipe.name)
        return Given(recipe.name, store.folder(recipe.name), title, choice)
    return None


def check(store: Store, recipes: Iterable[Recipe], runtime: Runtime) -> None:
    """Check every stage that reads a model which was not trained here.

    Raises:
        ValueError: A model does not support a stage that is to be built from it, or two models
            that must share a tokenizer do not.
    """
    seen: set[str] = set()
    for recipe in recipes:
        for name, stage in recipe.ancestry().items():
            if name not in seen and not store.holds(name):
                _check_stage(store, stage, runtime)
            seen.add(name)


def _check_stage(store: Store, stage: Recipe, runtime: Runtime) -> None:
    for model in _models_of(store, stage, runtime):
        _check_vocabulary(model)
        _chat_format(model)
    for argument in MODEL_ARGUMENTS:
        parent = stage.arguments.get(argument)
        root = given(store, lineage.origin(parent), runtime) if isinstance(parent, Recipe) else None
        if root is None:
            continue
        for reason in _reasons(root.config, stage, runtime.execution.attention):
            raise ValueError(
                f"{stage.stage}: {argument}={root.title} is a model of type "
                f"{root.config['model_type']}, {reason}"
            )
    _check_context(store, stage, runtime)
    _check_adapters(store, stage, runtime)
    _check_rows(store, stage, runtime)
    _check_tokenizers(store, stage, runtime)


def _models_of(store: Store, stage: Recipe, runtime: Runtime) -> list[Given]:
    """Return a stage itself, and those whose tokenizer it uses, as far as they can be read."""
    found = (given(store, root, runtime) for root in (stage, *lineage.tokenizers(stage).values()))
    return [model for model in found if model is not None]


def _check_vocabulary(model: Given) -> None:
    """Check that every token of a model's tokenizer has a row in its embedding."""
    tokens, rows = _num_tokens(model), model.config.get("vocab_size")
    if rows is not None and tokens > rows:
        raise ValueError(
            f"{model.title}: its tokenizer has {tokens:,} tokens and its embedding {rows:,} rows; "
            "take the model's own tokenizer"
        )


def _check_context(store: Store, stage: Recipe, runtime: Runtime) -> None:
    """Check that rows are no longer than the positions of the model that is trained on them."""
    rows, parent = stage.arguments.get("rows"), stage.arguments.get("parent")
    if not (isinstance(rows, Recipe) and isinstance(parent, Recipe)):
        return
    model = given(store, lineage.origin(parent), runtime)
    context = rows.arguments.get("context")
    positions = None if model is None else model.config.get("max_position_embeddings")
    if model is not None and context and positions and context > positions:
        raise ValueError(
            f"context={context}: {model.title} has {positions:,} positions, and {stage.stage} "
            f"would read rows of {context:,}; set context={positions}, or less"
        )


def _check_adapters(store: Store, stage: Recipe, runtime: Runtime) -> None:
    """Check that LoRA names matrices of the model, as far as its family is known."""
    parent, optim = stage.arguments.get("parent"), stage.arguments.get("optim")
    lora = optim.get("lora") if isinstance(optim, dict) else None
    if lora is None or not isinstance(parent, Recipe):
        return
    first = lineage.origin(parent)
    model = given(store, first, runtime)
    family = model.config["model_type"] if model else None
    if first.stage == "pretrain":
        family = OUR_FAMILY
    unknown = set(lora.get("target_modules", ())) - set(LAYER_MATRICES)
    if family in NATIVE_FAMILIES and unknown:
        raise ValueError(
            f"target_modules: {', '.join(sorted(unknown))}: a model of type {family} has no such "
            f"matrix; it has {', '.join(LAYER_MATRICES)}"
        )


def _check_rows(store: Store, stage: Recipe, runtime: Runtime) -> None:
    """Check that a draft has no more vocabulary rows than its target; those it lacks are added."""
    trace = stage.arguments.get("target_trace")
    whole = trace.arguments if isinstance(trace, Recipe) else stage.arguments
    models = []
    for model in (whole.get("target"), stage.arguments.get("draft")):
        if isinstance(model, Recipe):
            models.append(given(store, lineage.origin(model), runtime))
    if len(models) < 2 or models[0] is None or models[1] is None:
        return
    target, draft = models[0], models[1]
    most, rows = target.config.get("vocab_size"), draft.config.get("vocab_size")
    if most and rows and rows > most:
        raise ValueError(
            f"{stage.stage}: draft={draft.title} has {rows:,} vocabulary rows and "
            f"target={target.title} {most:,}: rows are added, never cut; take another draft"
        )


def _check_tokenizers(store: Store, stage: Recipe, runtime: Runtime) -> None:
    makers = {}
    for argument, recipe in lineage.tokenizers(stage).items():
        model = given(store, recipe, runtime)
        if model is not None:
            makers[argument] = model
    for (argument, maker), (other_argument, other) in itertools.combinations(makers.items(), 2):
        if maker.name == other.name:
            continue
        both = f"{stage.stage}: {argument}={maker.title} and {other_argument}={other.title}"
        if tokenizer(maker) != tokenizer(other):
            raise ValueError(
                f"{both} have different tokenizers; take a draft with the target's tokenizer"
            )
        if _chat_format(maker) != _chat_format(other):
            raise ValueError(
                f"{both} write a conversation differently; give both one chat_template.jinja, or "
                "set chat_format=chatml"
            )


# What takes a second to read is read once a process, and again once a model's files have changed.


@cache
def tokenizer(model: Given) -> str:
    """Return the digest of a model's tokenizer."""
    from soaes.data.chat import tokenizer_digest

    return tokenizer_digest(model.folder)


@cache
def _num_tokens(model: Given) -> int:
    from soaes.data.chat import load_tokenizer

    vocabulary = load_tokenizer(model.folder).get_vocab(with_added_tokens=True)
    return 1 + max(vocabulary.values(), default=-1)


@cache
def _chat_format(model: Given) -> ChatFormat | None:
    """How a model that the user names writes conversations, which is checked."""
    from soaes.data.chat_choice import find_format

    return find_format(model.folder, model.chat_format) if model.chat_format else None


def _reasons(config: dict[str, Any], stage: Recipe, attention: str) -> Iterable[str]:
    """Yield why a model cannot be used in a stage, and the way out."""
    states = state_layers(config)
    if states:
        yield (
            f"whose layers {states} carry a state from one document of a packed row into the next; "
            "take a model whose layers are attention"
        )
    if stage.stage in (*TRAINING_STAGES, "teach"):
        yield from _reasons_of_attention(config, attention)
    if stage.stage in ("teach", "teach_vllm"):
        soft_targets = declared_name(stage.arguments["soft_targets"]["_target_"])
        extras = _extras(config)
        if soft_targets == "Hidden" and extras:
            yield (
                f"whose output also has {' and '.join(extras)}: soft_targets=hidden stores one "
                "matrix; set soft_targets=topk, sampled or full"
            )
    decodes_here = stage.stage in NATIVE
    if stage.stage == "speed":
        decodes_here = declared_name(stage.arguments["backend"]["_target_"]) == "open_native"
    if decodes_here and config["model_type"] not in NATIVE_FAMILIES:
        yield (
            f"and our own decoding runs {', '.join(NATIVE_FAMILIES)}; "
            "set goal=speed backend=transformers speed.prediction=null"
        )


def state_layers(config: dict[str, Any]) -> list[str]:
    """Return the kinds of layers that carry a state through a row, such as linear attention.

    Args:
        config: config.json of a language model.
    """
    layers = set(config.get("layer_types") or [])
    return sorted(layers - {"full_attention", "sliding_attention", "chunked_attention"})


def _reasons_of_attention(config: dict[str, Any], attention: str) -> Iterable[str]:
    if config.get("attn_logit_softcapping") and attention != "eager":
        yield (
            f"which has a soft cap on attention's scores, and attention={attention} leaves it out; "
            "set runtime.execution.attention=eager"
        )
    if attention == "documents" and "sliding_attention" in (config.get("layer_types") or []):
        yield (
            "which has a sliding window, and attention=documents has none; "
            "set runtime.execution.attention=sdpa"
        )


def _extras(config: dict[str, Any]) -> list[str]:
    """What the output head does beside a product, as far as config.json says it."""
    extras = []
    if config.get("final_logit_softcapping"):
        extras.append("a soft cap")
    if config.get("logit_scale", 1) != 1 or config.get("logits_scaling", 1) != 1:
        extras.append("a scale")
    if config["model_type"] == "phi":
        extras.append("a bias")
    return extras
