"""Where the time of a set of rows went: `python -m soaes.report.time_profile 'experiment=table*' scale=tiny`, by kind of stage.

Of training stages also the share of this machine's matrix-product rate that they reached: 6 N D / (seconds x rate), for N weights in
matrices and D tokens, padding included (Kaplan et al. 2020; attention's own products are left out, so the share is a little low).
Reads manifests, and times one product; builds nothing."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import defaultdict

from soaes.pipeline import sweep
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store

SIZE, ROUNDS = 1024, 15  # of the timed product


def main() -> None:
    try:
        print("\n".join(report(sys.argv[1:])))
    except ValueError as error:
        sys.exit(f"error: {error}")


def report(words: list[str]) -> list[str]:
    """A line a kind of stage, the longest first."""
    rest = [word for word in words if not word.startswith("experiment=")]
    rows = [
        row
        for name in sweep.experiment_names(words)
        for row in sweep.jobs([*([f"experiment={name}"] if name else []), *rest])
    ]
    store = Store(rows[0].runtime.store)
    stages = {
        name: recipe
        for row in rows
        for name, recipe in row.recipe.ancestry().items()
        if store.holds(name)
    }
    if not stages:
        raise ValueError(
            f"nothing of these rows is built in {store.root}; run soaes.run with the same words first"
        )
    return _lines(store, stages, rows[0].runtime.execution.threads)


def _lines(store: Store, stages: dict[str, Recipe], threads: int) -> list[str]:
    kinds: dict[str, list[Recipe]] = defaultdict(list)
    for recipe in stages.values():
        kinds[_kind(store, recipe)].append(recipe)
    spent = {
        kind: sum(store.manifest(recipe.name)["seconds"] for recipe in recipes)
        for kind, recipes in kinds.items()
    }
    rate, total = matmul_rate(threads), sum(spent.values())
    product = (
        f"bfloat16 products of {SIZE} x {SIZE} here, threads={threads}: {rate / 1e9:.0f} GFLOP/s"
    )
    head = f"{len(stages)} stages, {total:,.0f} s of one worker; {product}"
    lines = [
        head,
        f"{'stage':<24} {'number':>6} {'seconds':>8} {'of all':>7} {'of the product rate':>20}",
    ]
    for kind in sorted(kinds, key=lambda kind: -spent[kind]):
        shares = [
            share for recipe in kinds[kind] if (share := _share(store, recipe, rate)) is not None
        ]
        reached = f"{statistics.median(shares):>20.0%}" if shares else f"{'':>20}"
        lines.append(
            f"{kind:<24} {len(kinds[kind]):>6} {spent[kind]:>8.0f} {spent[kind] / total:>7.0%} {reached}"
        )
    return lines


def _kind(store: Store, recipe: Recipe) -> str:
    """The stage's function and, of a trained model, its size."""
    path = store.folder(recipe.name) / "config.json"
    if not path.exists():
        return recipe.stage
    config = json.loads(path.read_text())
    return f"{recipe.stage} {config['num_hidden_layers']}x{config['hidden_size']}"


def _share(store: Store, recipe: Recipe, rate: float) -> float | None:
    if "optim" not in recipe.arguments:
        return None
    metrics = store.metrics(recipe.name)
    tokens = (
        metrics["steps"]
        * recipe.arguments["optim"]["global_batch_size"]
        * recipe.parents["rows"].arguments["context"]
    )
    config = json.loads((store.folder(recipe.name) / "config.json").read_text())
    return 6 * matrix_weights(config) * tokens / (metrics["seconds"] * rate)


def matrix_weights(config: dict) -> int:
    """Of a Qwen2 model: all but embeddings, norms and biases."""
    width, heads = config["hidden_size"], config["num_attention_heads"]
    keys = config["num_key_value_heads"] * (config.get("head_dim") or width // heads)
    layer = 2 * width * width + 2 * width * keys + 3 * width * config["intermediate_size"]
    return config["num_hidden_layers"] * layer + width * config["vocab_size"]


def matmul_rate(threads: int) -> float:
    """Operations a second of one large bfloat16 product: the median of a few."""
    import torch

    torch.set_num_threads(threads)
    left, right = (torch.randn(SIZE, SIZE, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        torch.mm(left, right)
        times.append(time.perf_counter() - start)
    return 2 * SIZE**3 / statistics.median(times)


if __name__ == "__main__":
    main()
