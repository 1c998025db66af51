"""How much a stage computes, as its recipe and the store tell it: models, tokens, answers.

Rows that are packed are counted; of others the tokens are estimated from their data, or are those
that `runtime.expected_tokens` names. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from soaes.bill import shape as shapes
from soaes.bill.shape import ModelShape
from soaes.pipeline import lineage
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.runtime import Runtime
from soaes.pipeline.store import Store, read_json

# The argument by which a stage reads the model that it runs, the larger one first.
MODELS = ("parent", "model", "target", "draft")

# Tokens of a document of the synthetic world, measured at scale=tiny with its tokenizer of 3,000
# words: domain and general text, dialogues near the domain and all of them, stage 2's samples.
WORLD_TOKENS = {"corpus": 53, "general": 30, "near": 39, "dialogue": 48, "qa": 43}

# Facts about an entity of the world, which general text asks for.
FACTS_PER_ENTITY = 1.8

# Bytes of a user's file that become a token: Chinese text has three a character.
BYTES_PER_TOKEN = 4

# Share of the tokens of a packed row that bear loss, where it is not counted yet.
LOSS_SHARE = {"corpus": 1.0, "general": 1.0, "dialogue": 0.6, "qa": 0.33}

# Tokens of a question, and of an exam question with its options.
PROMPT_TOKENS = 64
EXAM_TOKENS = 120

# Exams and options of a question: what the synthetic world writes.
EXAMS = 3
OPTIONS = 4


class Rows(NamedTuple):
    """Packed rows of training."""

    num_rows: int
    context: int
    loss_share: float
    is_counted: bool
    """Whether they are packed already; else they are estimated."""

    @property
    def tokens(self) -> int:
        """Tokens of all rows, padding included."""
        return self.num_rows * self.context


class Training(NamedTuple):
    """What a training stage reads."""

    rows: Rows
    steps: int
    tokens: float
    """Of all steps."""


def model_of(store: Store, stage: Recipe, runtime: Runtime) -> ModelShape | None:
    """Return the shape of the model that a stage trains or runs; None if it is not known."""
    if stage.stage == "pretrain" or stage.stage in lineage.GIVEN:
        return shape_of(store, stage, runtime)
    for name in MODELS:
        model = stage.arguments.get(name)
        if isinstance(model, Recipe):
            return shape_of(store, lineage.origin(model), runtime)
    return None


def draft_of(store: Store, stage: Recipe, runtime: Runtime) -> ModelShape | None:
    """Return the shape of the draft that a stage runs beside a target; None without one."""
    draft = stage.arguments.get("draft")
    if not isinstance(draft, Recipe) or "target" not in stage.arguments:
        return None
    return shape_of(store, lineage.origin(draft), runtime)


def shape_of(store: Store, origin: Recipe, runtime: Runtime) -> ModelShape | None:
    """Return the shape of a model from the stage that it began with.

    A folder in the store, or the user's own, tells it; of a published model that is to be fetched
    it must be kept here.
    """
    config = store.folder(origin.name) / "config.json"
    if origin.stage == "local_model" and not config.exists():
        digest = origin.arguments["content"]["digest"]
        config = Path(runtime.models.get(digest, "")).expanduser() / "config.json"
    if config.exists():
        return shapes.from_config(read_json(config))
    if origin.stage == "fetch":
        return shapes.published(origin.arguments["repo"])
    if origin.stage == "pretrain":
        return _pretrained_shape(store, origin, runtime)
    return None


def unknown_models(store: Store, todo: Mapping[str, Recipe], runtime: Runtime) -> list[str]:
    """Name the models of stages to run whose shape nothing tells."""
    names = {}
    for stage in todo.values():
        for model in (stage, *stage.parents.values()):
            first = lineage.origin(model)
            if first.stage in lineage.GIVEN and shape_of(store, first, runtime) is None:
                names[first.name] = first.arguments.get("repo", first.name)
    return sorted(names.values())


def _pretrained_shape(store: Store, pretrain: Recipe, runtime: Runtime) -> ModelShape | None:
    """Return the shape that `checkpoint.create` gives a model of our own."""
    arguments = pretrain.arguments
    tokenizer = arguments["tokenizer"]
    vocabulary = tokenizer.arguments.get("vocabulary")
    if vocabulary is None:  # another model's
        whole = shape_of(store, lineage.tokenizer(tokenizer) or tokenizer, runtime)
        vocabulary = whole.vocabulary if whole else None
    if vocabulary is None:
        return None
    width, heads = arguments["width"], arguments["heads"]
    return ModelShape(
        layers=arguments["layers"],
        width=width,
        heads=heads,
        kv_heads=arguments["kv_heads"],
        head_width=width // heads,
        mlp_width=int(arguments.get("mlp_ratio", 3) * width),
        vocabulary=vocabulary,
    )


# --------------------------------------------------------------------------------- rows and steps


def rows_of(store: Store, pack: Recipe, runtime: Runtime) -> Rows | None:
    """Return the training rows that a `pack` stage has written or will write.

    Returns:
        The rows; None if nothing tells how many there will be.
    """
    context = int(pack.arguments["context"])
    written = store.folder(pack.name) / "packing_report.json"
    if written.exists():
        report = read_json(written)["train"]
        loss_share = report["loss_tokens"] / max(1, report["rows"] * context)
        return Rows(report["rows"], context, loss_share, True)
    tokens = {}
    for source in pack.arguments["sources"]:
        expected = runtime.expected_tokens.get(source)
        tokens[source] = expected or _estimated_tokens(pack, source, runtime)
    total = sum(tokens.values())
    if not all(tokens.values()):
        return None
    loss = sum(LOSS_SHARE[source] * count for source, count in tokens.items())
    return Rows(math.ceil(total / context), context, loss / total, False)


def _estimated_tokens(pack: Recipe, source: str, runtime: Runtime) -> float:
    """Estimate the tokens of a source that is not packed yet; 0 if nothing tells them."""
    documents = pack.arguments["documents"]
    if documents.stage == "world":
        is_near = source == "dialogue" and pack.arguments.get("categories")
        return _world_tokens(documents.arguments, source, bool(is_near))
    if documents.stage == "files" and runtime.root:
        paths = Path(runtime.root).expanduser().joinpath(source).rglob("*")
        return sum(path.stat().st_size for path in paths if path.is_file()) / BYTES_PER_TOKEN
    return 0


def _world_tokens(world: Mapping[str, Any], source: str, is_near: bool) -> float:
    if source == "corpus":
        documents = world["enterprises"] * world["docs_per_enterprise"]
    elif source == "general":
        subjects = world["entities"] + world["famous"]
        asked = FACTS_PER_ENTITY * (world["mcq_per_fact"] + world["cloze_per_fact"])
        documents = subjects * (world["docs_per_entity"] + asked)
    elif source == "qa":
        documents = world["questions"] * (1 - world["dev_share"] - world["test_share"])
    elif is_near:
        return float(world["dialogues"] * WORLD_TOKENS["near"])
    else:
        documents = world["dialogues"] + world["short_questions"]
    return float(documents * WORLD_TOKENS[source])


def training_of(store: Store, stage: Recipe, runtime: Runtime) -> Training | None:
    """Return what a training stage reads: steps of its global batch, until epochs or budget end."""
    rows = rows_of(store, stage.arguments["rows"], runtime)
    if rows is None:
        return None
    optim = stage.arguments["optim"]
    batch = optim["global_batch_size"]
    steps_of_epoch = math.ceil(rows.num_rows / batch)
    steps = max(1, math.ceil(optim.get("epochs", 1) * steps_of_epoch))
    tokens = min(steps * batch, math.ceil(optim.get("epochs", 1) * rows.num_rows)) * rows.context
    budget = optim.get("max_tokens")
    if budget and budget < tokens:
        steps = max(1, int(budget) // (batch * rows.context))
        tokens = steps * batch * rows.context
    return Training(rows, steps, tokens)


# -------------------------------------------------------------------------------------- decoding


class Answers(NamedTuple):
    """Answers that a stage writes, at most."""

    num_answers: int
    longest: int
    """Tokens of the longest, its prompt included."""

    tokens: int
    """New tokens, if every answer is as long as it may be."""


def answers_of(stage: Recipe) -> Answers | None:
    """Return the answers of a stage that decodes or reads a trace; None of any other.

    None as well where nothing is known of the questions.
    """
    trace = stage.arguments.get("target_trace")
    if isinstance(trace, Recipe):
        return answers_of(trace)
    limits = stage.arguments.get("max_new_tokens")
    if not isinstance(limits, Mapping):
        return None
    counts = stage.arguments.get("prompts")
    if not isinstance(counts, Mapping):
        counts = _evaluated(stage)
        if counts is None:
            return None
    times = 1
    if stage.stage == "speed":  # each prompt is decoded by the method and by autoregression
        times = 2 * (stage.arguments["rounds"] + stage.arguments.get("warmup", 1))
    tokens = sum(times * counts[task] * limits[task] for task in counts)
    longest = PROMPT_TOKENS + max(limits[task] for task in counts)
    return Answers(times * sum(counts.values()), longest, tokens)


def _evaluated(stage: Recipe) -> dict[str, int] | None:
    """Return the samples that `evaluate` answers, by task."""
    world = stage.arguments["documents"].arguments
    if "questions" not in world:
        return None
    count = world["questions"] * world[f"{stage.arguments.get('split', 'test')}_share"]
    count = min(count, stage.arguments.get("limit") or count)
    reports = round(count * world["report_share"])
    unseen = stage.arguments.get("unseen_samples", 0)
    unseen = world["unseen_questions"] if unseen is None else unseen
    return {"qa": round(count) - reports + unseen, "report": reports}


def exam_tokens(stage: Recipe) -> int:
    """Return the tokens that `benchmark` reads: every question with its examples and options."""
    questions = stage.arguments["documents"].arguments.get("exam_questions", 0)
    limit = stage.arguments.get("limit")
    questions = min(questions, limit) if limit else questions
    return EXAMS * OPTIONS * questions * EXAM_TOKENS * (stage.arguments.get("shots", 0) + 1)
