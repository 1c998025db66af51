"""Where a model's weights and a folder's token ids come from, as recipes tell it.

A model is trained from its parent, and that from its own, down to one that was fetched, is the
user's or began with random weights. Token ids are those of one tokenizer, which was trained here or
came with such a model. Imports no torch.
"""

from __future__ import annotations

from soaes.pipeline.recipe import Recipe

# The stages that a published model, or one of the user's own, begins with.
GIVEN = ("fetch", "local_model")

# The argument by which a stage reads the model that its own output goes on from.
MODEL = ("parent", "model")

# The argument by which a stage reads the tokenizer whose ids its own output holds.
TOKENIZER = ("tokenizer", *MODEL, "target", "draft")

# The arguments of one stage that must hold ids of one tokenizer.
SAME_TOKENIZER = (*TOKENIZER, "rows", "like", "teacher_logits", "target_trace")


def origin(model: Recipe) -> Recipe:
    """Return the stage that a model's weights began with: `pretrain`, or one of GIVEN."""
    return chain(model)[0]


def chain(model: Recipe) -> list[Recipe]:
    """Return the stages that made a model's weights, from its origin to itself."""
    for name in MODEL:
        parent = model.arguments.get(name)
        if isinstance(parent, Recipe):
            return [*chain(parent), model]
    return [model]


def tokenizer(recipe: Recipe) -> Recipe | None:
    """Return the stage that made the tokenizer of a folder's ids: `tokenizer`, or one of GIVEN.

    Args:
        recipe: A model, rows, stored soft targets or a trace.

    Returns:
        The stage; None if the recipe does not tell it.
    """
    first = _first(recipe, TOKENIZER)
    return first if first.stage in ("tokenizer", *GIVEN) else None


def tokenizers(stage: Recipe) -> dict[str, Recipe]:
    """Return the stages that made the tokenizers of what a stage reads, which must be equal.

    Args:
        stage: The stage.

    Returns:
        The stages by argument, where recipes tell them.
    """
    made_by = {}
    for name in SAME_TOKENIZER:
        parent = stage.arguments.get(name)
        maker = tokenizer(parent) if isinstance(parent, Recipe) else None
        if maker is not None:
            made_by[name] = maker
    return made_by


def _first(recipe: Recipe, names: tuple[str, ...]) -> Recipe:
    """Follow the first argument of these names that is a stage, as far as there is one."""
    for name in names:
        parent = recipe.arguments.get(name)
        if isinstance(parent, Recipe):
            return _first(parent, names)
    return recipe
