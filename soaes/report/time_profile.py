"""Where the time of a sweep went, by kind of stage.

`python -m soaes.report.time_profile 'experiment=table*' scale=tiny`

Of training stages also the share of this machine's matrix-product rate that they reached: 6 N D /
(seconds x rate), for N weights in matrices and D tokens, padding included (Kaplan et al. 2020). The
attention's own products are left out, so the share is a little low. Reads manifests and times one
product in each type that a stage trained in; builds nothing.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from soaes.pipeline import sweep
from soaes.pipeline.progress import one_line_errors
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store, read_json

SIZE = 1024  # rows and columns of the timed product's matrices
ROUNDS = 15  # times that the product is taken
PRODUCTS = {"32-true": "float32", "bf16-mixed": "bfloat16", "16-mixed": "float16"}  # by precision


def main() -> None:
    """Print the profile of the sweep that the command line names."""
    with one_line_errors():
        print("\n".join(report(sys.argv[1:])))


def report(words: list[str]) -> list[str]:
    """Profile the built stages of a sweep.

    Args:
        words: The command line of soaes.run.

    Returns:
        A line for each kind of stage, the longest first, below two lines of heading.

    Raises:
        ValueError: No stage of the sweep is built.
    """
    jobs = [job for line in sweep.sweeps_of(words) for job in sweep.jobs(line)]
    store = Store(jobs[0].runtime.store)
    stages: dict[str, Recipe] = {}
    for job in jobs:
        for name, recipe in job.recipe.ancestry().items():
            if store.holds(name):
                stages[name] = recipe
    if not stages:
        raise ValueError(
            f"nothing of these rows is built in {store.root}; run soaes.run with the same words"
        )
    return _lines(store, stages, jobs[0].runtime.execution.threads)


@dataclass(frozen=True)
class KindTime:
    """The stages of one kind, and their time."""

    kind: str  # the stage's function and, of a trained model, its size
    stages: tuple[Recipe, ...]
    seconds: float  # of all of them


def by_kind(store: Store, stages: Mapping[str, Recipe]) -> list[KindTime]:
    """Sort built stages into kinds, the one that took longest first.

    Args:
        store: Where they lie.
        stages: Their recipes by name.
    """
    recipes: dict[str, list[Recipe]] = defaultdict(list)
    for recipe in stages.values():
        recipes[_kind(store, recipe)].append(recipe)
    kinds = []
    for kind, of_kind in recipes.items():
        seconds = sum(store.manifest(recipe.name)["seconds"] for recipe in of_kind)
        kinds.append(KindTime(kind, tuple(of_kind), seconds))
    return sorted(kinds, key=lambda kind: -kind.seconds)


def _lines(store: Store, stages: dict[str, Recipe], threads: int) -> list[str]:
    kinds = by_kind(store, stages)
    trained = [recipe for recipe in stages.values() if "optim" in recipe.arguments]
    rates = {dtype: matmul_rate(threads, dtype) for dtype in sorted(set(map(_dtype, trained)))}
    total = sum(kind.seconds for kind in kinds)
    timed = [f"{dtype} {rate / 1e9:.0f} GFLOP/s" for dtype, rate in rates.items()]
    product = f"products of {SIZE} x {SIZE} here, threads={threads}"
    lines = [
        f"{len(stages)} stages, {total:,.0f} s of one worker; {product}: {', '.join(timed)}",
        f"{'stage':<24} {'number':>6} {'seconds':>8} {'of all':>7} {'of the product rate':>20}",
    ]
    for kind in kinds:
        shares = [_rate_share(store, recipe, rates) for recipe in kind.stages]
        known = [share for share in shares if share is not None]
        reached = f"{statistics.median(known):>20.0%}" if known else f"{'':>20}"
        number, of_all = len(kind.stages), kind.seconds / total
        lines.append(f"{kind.kind:<24} {number:>6} {kind.seconds:>8.0f} {of_all:>7.0%} {reached}")
    return lines


def _kind(store: Store, recipe: Recipe) -> str:
    """The stage's function and, of a trained model, its size."""
    path = store.folder(recipe.name) / "config.json"
    if not path.exists():
        return recipe.stage
    config = read_json(path)
    return f"{recipe.stage} {config['num_hidden_layers']}x{config['hidden_size']}"


def _dtype(recipe: Recipe) -> str:
    """The type that a training stage computes its products in."""
    return PRODUCTS[recipe.arguments["optim"]["precision"]]


def _rate_share(store: Store, recipe: Recipe, rates: dict[str, float]) -> float | None:
    """The share of its type's rate that a training stage reached; None of other stages."""
    if "optim" not in recipe.arguments:
        return None
    metrics = store.metrics(recipe.name)
    rows = metrics["steps"] * recipe.arguments["optim"]["global_batch_size"]
    tokens = rows * recipe.parents["rows"].arguments["context"]
    config = read_json(store.folder(recipe.name) / "config.json")
    return 6 * matrix_weights(config) * tokens / (metrics["seconds"] * rates[_dtype(recipe)])


def matrix_weights(config: dict[str, Any]) -> int:
    """Count the weights of a Qwen2 model that a training step multiplies by.

    Args:
        config: The model's config.json.

    Returns:
        All weights but embeddings, norms and biases.
    """
    width, heads = config["hidden_size"], config["num_attention_heads"]
    head_width = config.get("head_dim") or width // heads
    key_width = config["num_key_value_heads"] * head_width
    attention = 2 * width * width + 2 * width * key_width
    layer = attention + 3 * width * config["intermediate_size"]
    return config["num_hidden_layers"] * layer + width * config["vocab_size"]


def matmul_rate(threads: int, dtype: str) -> float:
    """Time a large product: operations a second, the median of a few."""
    import torch

    torch.set_num_threads(threads)
    left, right = (torch.randn(SIZE, SIZE, dtype=getattr(torch, dtype)) for _ in range(2))
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        torch.mm(left, right)
        times.append(time.perf_counter() - start)
    return 2 * SIZE**3 / statistics.median(times)


if __name__ == "__main__":
    main()
