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
from typing import Any, NamedTuple

from soaes.decode.settings import NATIVE_FAMILIES
from soaes.model import folder as model_folder
from soaes.pipeline import lineage
from soaes.pipeline.recipe import Recipe, declared_name
from soaes.pipeline.runtime import TRAINING_STAGES, Runtime
from soaes.pipeline.store import Store

NATIVE = ("target_trace", "predict_acceptance", "acceptance")  # and `speed`, by its backend

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

    recipe: Recipe
    folder: Path
    title: str  # as the user knows it

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
    if recipe.stage == "local_model":
        folder = runtime.models.get(recipe.arguments["content"]["digest"])
        if folder is not None:
            return Given(recipe, Path(folder).expanduser(), folder)
    if recipe.stage in lineage.GIVEN and store.holds(recipe.name):
        title = recipe.arguments.get("repo", recipe.name)
        return Given(recipe, store.folder(recipe.name), title)
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
    for argument in MODEL_ARGUMENTS:
        parent = stage.arguments.get(argument)
        if not isinstance(parent, Recipe):
            continue
        model = given(store, lineage.origin(parent), runtime)
        if model is None:
            continue
        config = model.config
        for reason in _reasons(config, stage, runtime.execution.attention):
            raise ValueError(
                f"{stage.stage}: {argument}={model.title} is a model of type "
                f"{config['model_type']}, {reason}"
            )
    _check_tokenizers(store, stage, runtime)


def _check_tokenizers(store: Store, stage: Recipe, runtime: Runtime) -> None:
    makers = {}
    for argument, maker in lineage.tokenizers(stage).items():
        model = given(store, maker, runtime)
        if model is not None:
            makers[argument] = model
    for (argument, maker), (other_argument, other) in itertools.combinations(makers.items(), 2):
        is_one = maker.recipe.name == other.recipe.name
        if is_one or tokenizer(maker.folder) == tokenizer(other.folder):
            continue
        raise ValueError(
            f"{stage.stage}: {argument}={maker.title} and {other_argument}={other.title} have "
            "different tokenizers; take a draft with the target's tokenizer"
        )


@cache
def tokenizer(folder: Path) -> str:
    """The digest of a tokenizer, which takes a second to read."""
    from soaes.data.chat import tokenizer_digest

    return tokenizer_digest(folder)


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
    if stage.stage == "teach":
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
