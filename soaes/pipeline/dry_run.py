"""Look ahead: which stages a set of goals would run, how they differ from built ones, and the cost.

Reads the store; builds nothing and imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from soaes.bill import report as bill
from soaes.pipeline import labels, processor
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.runtime import Runtime
from soaes.pipeline.scheduler import missing
from soaes.pipeline.store import Store

Manifest = dict[str, Any]  # of a folder in the store


def plan(store: Store, recipes: list[Recipe], runtime: Runtime) -> Iterator[str]:
    """Yield a line for each stage, then the bill of those to run.

    A stage is `to run`, `cached`, or `spared`: not in the store, and not needed either, because
    what is built from it is there.
    """
    todo = missing(store, recipes)
    for name, recipe in _ancestry(recipes).items():
        if name in todo:
            yield f"  to run  {name}{_difference(store, recipe)}"
        elif store.holds(name):
            yield f"  cached  {name}"
        else:
            yield f"  spared  {name}"
    yield from bill.lines(store, todo, runtime, measured_seconds(store, todo))
    mixed = mixed_code(store, recipes)
    if mixed:
        yield f"Warning: cached {', '.join(mixed)} come from different code"


def slow_precision(store: Store, recipes: list[Recipe], runtime: Runtime) -> str:
    """Return a warning where stages to run would compute in bfloat16 on a CPU that is slow at it.

    Args:
        store: Where the stages lie.
        recipes: The goals.
        runtime: How stages are run.
    """
    why = processor.slow_bfloat16()
    if not why or runtime.execution.device != "cpu":
        return ""
    stages = set()
    for recipe in missing(store, recipes).values():
        optim = recipe.arguments.get("optim")
        if isinstance(optim, dict) and optim.get("precision") == "bf16-mixed":
            stages.add(recipe.stage)
    if not stages:
        return ""
    return (
        f"Warning: precision=bf16-mixed: {why}, so {', '.join(sorted(stages))} may take ten times "
        "as long as with precision=32-true"
    )


def _ancestry(recipes: list[Recipe]) -> dict[str, Recipe]:
    """Return all stages that some goals need, themselves included, parents first."""
    stages: dict[str, Recipe] = {}
    for recipe in recipes:
        stages.update(recipe.ancestry())
    return stages


def _difference(store: Store, recipe: Recipe) -> str:
    """Return the keys in which a stage differs from the most similar cached stage of its kind."""
    candidates = []
    for name in store.names(recipe.stage):
        keys = labels.differences(recipe.written, store.recipe(name))
        candidates.append((keys, name))
    if not candidates:
        return ""
    keys, name = min(candidates, key=lambda candidate: len(candidate[0]))
    changes = [f"{key} {here} instead of {there}" for key, (here, there) in keys.items()]
    return f"  unlike {name}: {', '.join(changes)}"


def mixed_code(store: Store, recipes: list[Recipe]) -> list[str]:
    """Return the kinds of stages that were built by more than one state of the code they call.

    Args:
        store: Where the stages lie.
        recipes: The goals whose ancestry is looked at.
    """
    sources: dict[str, set[str]] = {}
    for name, recipe in _ancestry(recipes).items():
        if store.holds(name):
            targets = _targets(recipe.written)
            sources.setdefault(targets, set()).add(store.manifest(name)["source"])
    mixed = set()
    for targets, digests in sources.items():
        if len(digests) > 1:
            first = targets.partition(",")[0]
            mixed.add(first.rpartition(".")[2])
    return sorted(mixed)


def _targets(written: Mapping[str, Any]) -> str:
    """Return all functions that a written recipe calls, in one line."""
    flat = labels.flatten(written)
    return ", ".join(sorted({str(flat[key]) for key in flat if key.endswith("_target_")}))


@dataclass(frozen=True)
class Estimate:
    """What running some stages is expected to cost."""

    seconds: float
    """Of one worker, without the unknown stages, as the rest."""

    disk_bytes: float

    memory_mb: int
    """Of the largest stage; 0 if none is known."""

    unknown: Mapping[str, int]
    """Kind of stage -> how many of them were never built here at this size."""

    @property
    def num_unknown(self) -> int:
        """The stages of which nothing is known."""
        return sum(self.unknown.values())


def estimate(store: Store, todo: Mapping[str, Recipe]) -> Estimate:
    """Estimate what running some stages costs in time, disk and memory.

    Each stage is counted as the median of the cached ones of its kind and size. Of those that were
    never built here at their size nothing is known, and they are counted instead.

    Args:
        store: Where built stages lie.
        todo: The stages to run, by name.
    """
    seconds = 0.0
    size = 0.0
    memory = 0
    unknown: dict[str, int] = {}
    for name, manifests in _alike(store, todo).items():
        if not manifests:
            stage = todo[name].stage
            unknown[stage] = unknown.get(stage, 0) + 1
            continue
        seconds += median(manifest["seconds"] for manifest in manifests)
        size += median(_folder_size(manifest) for manifest in manifests)
        memory = max(memory, *(manifest["peak_memory_mb"] for manifest in manifests))
    return Estimate(seconds, size, memory, unknown)


def measured_seconds(store: Store, todo: Mapping[str, Recipe]) -> dict[str, float]:
    """Return the seconds of the stages of which one of their kind and size was built here.

    Args:
        store: Where built stages lie.
        todo: The stages to run, by name.
    """
    return {
        name: median(manifest["seconds"] for manifest in manifests)
        for name, manifests in _alike(store, todo).items()
        if manifests
    }


def _alike(store: Store, todo: Mapping[str, Recipe]) -> dict[str, list[Manifest]]:
    """Return the manifests of the cached stages of each stage's kind and size."""
    kinds = _Kinds(store, todo)
    alike = {}
    for name, recipe in todo.items():
        kind = kinds.kind(name)
        names = [built for built in store.names(recipe.stage) if kinds.kind(built) == kind]
        alike[name] = [store.manifest(built) for built in names]
    return alike


# The arguments, of a stage or of those before it, that decide how much it computes.
SIZES = (
    "layers",
    "width",
    "repo",
    "vocabulary",
    "context",
    "digest",
    "entities",
    "enterprises",
    "docs_per_entity",
    "docs_per_enterprise",
    "dialogues",
    "short_questions",
    "questions",
    "sources",
    "epochs",
    "max_tokens",
    "limit",
    "prompts",
    "rounds",
)


class _Kinds:
    """What decides the cost of stages: function, format of soft targets, and all sizes before it.

    Args:
        store: Where built stages lie.
        todo: The stages to run.
    """

    def __init__(self, store: Store, todo: Mapping[str, Recipe]) -> None:
        self.store = store
        self.written: dict[str, Mapping[str, Any]] = {}
        for recipe in todo.values():
            for name, ancestor in recipe.ancestry().items():
                self.written[name] = ancestor.written
        self.sizes: dict[str, frozenset[str]] = {}

    def kind(self, name: str) -> tuple[str, ...]:
        """Return what two stages of one cost have in common."""
        written = self._written(name)
        soft_targets = written.get("soft_targets", {}).get("_target_", "")
        return (written["_target_"], soft_targets, *sorted(self._sizes(name)))

    def _written(self, name: str) -> Mapping[str, Any]:
        """Return a written recipe; of a folder that is gone only the name is known."""
        if name not in self.written:
            known = self.store.holds(name)
            self.written[name] = self.store.recipe(name) if known else {"_target_": name}
        return self.written[name]

    def _sizes(self, name: str) -> frozenset[str]:
        if name not in self.sizes:
            sizes: set[str] = set()
            for key, value in labels.flatten(self._written(name)).items():
                if any(part in SIZES for part in key.split(".")):
                    sizes.add(f"{key}={value}")
            for parent in labels.parents(self._written(name)):
                sizes |= self._sizes(parent)
            self.sizes[name] = frozenset(sizes)
        return self.sizes[name]


def _folder_size(manifest: Mapping[str, Any]) -> int:
    """Return the bytes of an output, from its manifest."""
    return sum(entry["bytes"] for entry in manifest["files"].values())
