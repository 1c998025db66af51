"""The decoding side of the GPU report: share of the bandwidth, and speculation beside its costs.

The models count: after token t comes t + 1, by the shapes of real ones. So a draft agrees with the
target exactly as often as it is made to, and both write one text in any arithmetic.

# V vocabulary, D width
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.gpu_setting import Row, Setting
from benchmarks.rounds import row
from soaes.decode import costs
from soaes.decode.autoregressive import Autoregressive
from soaes.decode.backends.native import NativePair
from soaes.decode.base import Generation
from soaes.decode.clock import timed
from soaes.decode.engine import Engine
from soaes.decode.graphs import GraphedEngine
from soaes.decode.speculative import Speculative
from soaes.metrics.acceptance import accounted_speedup

TARGETS = ("7B", "3B", "1.5B")  # the first that fits the card
DRAFT = "0.5B"
N = 3  # drafted tokens in a block, as in Table 6
WRONG = 0.24  # share of tokens after which the draft errs: the paper's rate per position is .758
NEVER = -1  # no token ends a text
PROMPT, NEW_TOKENS = 256, 128
BANDWIDTH_SHARE = 0.7  # that is asked of autoregression
PREDICTED_SHARE = 0.85  # that is asked of speculation: measured / predicted by its costs
ENGINES = {"without graphs": Engine, "with CUDA graphs": GraphedEngine}


def decoding(setting: Setting) -> Iterator[Row]:
    """Time autoregression and speculation of a pair, without and with CUDA graphs.

    Raises:
        RuntimeError: A decoder wrote another text than the target counts.
    """
    bandwidth = max(setting.copy_rates())
    size = largest_target(setting)
    for name, engine_class in ENGINES.items():
        setting.free_memory()
        label = f"{size} with {DRAFT}, {name}"
        yield from _pair_rows(setting, engine_class, size, bandwidth, label)


def largest_target(setting: Setting) -> str:
    """Return the largest target whose model and engine fit the card together in bfloat16.

    Raises:
        ValueError: None does.
    """
    if setting.dry:
        return TARGETS[0]
    for size in TARGETS:
        if 4 * setting.shape(size, tie_word_embeddings=False).parameters < 0.85 * setting.memory:
            return size
    raise ValueError(
        f"{setting.card} has {setting.memory / 1e9:.0f} GB, and {TARGETS[-1]} decodes in 8 GB; "
        "take a larger card, or leave this part out by parts=..."
    )


@torch.no_grad()
def counting_model(setting: Setting, size: str, wrong: float = 0.0) -> Any:
    """Return a model after whose token t comes t + 1, modulo its vocabulary.

    Layers add nothing to a token's embedding, though every product is computed; row t + 1 of the
    output matrix is the embedding of t.

    Args:
        setting: Device and shapes.
        size: Of a Qwen2.5, as in 7B.
        wrong: Share of tokens after which it counts by two.
    """
    model = setting.model(size, setting.dtype, tie_word_embeddings=False).eval()
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    embedding_VD = torch.nn.init.normal_(model.model.embed_tokens.weight)
    vocabulary = len(embedding_VD)
    errs_V = torch.rand(vocabulary, generator=torch.Generator().manual_seed(0)) < wrong
    next_V = (torch.arange(vocabulary) + 1 + errs_V) % vocabulary
    next_V = next_V.to(embedding_VD.device)
    model.lm_head.weight.zero_().index_add_(0, next_V, embedding_VD)
    return model


def _pair_rows(
    setting: Setting, engine_class: type[Engine], size: str, bandwidth: float, label: str
) -> Iterator[Row]:
    """Time a pair's decoders in turns, and its parts."""
    target = engine_class(counting_model(setting, size))
    draft = engine_class(counting_model(setting, DRAFT, wrong=WRONG))
    prompt = list(range(8 if setting.dry else PROMPT))
    count = 12 if setting.dry else NEW_TOKENS
    plain = Autoregressive(target, 0.0, 1.0, NEVER)
    method = Speculative(target, draft, N, 0.0, 1.0, NEVER)
    seconds: dict[str, list[float]] = {"plain": [], "method": []}
    for number in range(2 if setting.dry else 6):
        for name, decoder in (("plain", plain), ("method", method)):
            elapsed, generation = timed(
                setting.device, decoder.generate, prompt, count, torch.Generator()
            )
            check_counts(generation, prompt, f"{name}, {label}")
            if number > 0:  # the first warms up, and records graphs
                seconds[name].append(elapsed)
    drafted = generation

    pair = NativePair(method, plain, N, min(target.positions, draft.positions))
    text = Generation(tokens=drafted.tokens, steps=count)
    turns = 1 if setting.dry else costs.TURNS
    measured = costs.measure_costs(pair, [prompt], [text], seed=0, turns=turns)
    assert measured is not None, "our own pairs have costs"
    prediction = {
        "new_tokens": count,
        "autoregressive_new_tokens": count,
        "steps": drafted.steps,
        "drafted": drafted.drafted,
        "tests_per_position": drafted.tests_per_position,
    }
    predicted = accounted_speedup([prediction], measured)
    assert predicted is not None
    read = sum(matrix.plain.nbytes for matrix in target.matrices)
    share = read / (measured.target_step_ms / 1000) / bandwidth
    speedups = [slow / fast for slow, fast in zip(seconds["plain"], seconds["method"])]
    ratios = [speedup / predicted for speedup in speedups]
    passed = sum(drafted.accepts_per_position) / sum(drafted.tests_per_position)

    goal = setting.goal(BANDWIDTH_SHARE)
    yield row(f"weights read / bandwidth, a step of {label}", "ratio", [share], goal, limit=1.0)
    yield row(f"autoregression, {label}", "tokens/s", [count / each for each in seconds["plain"]])
    yield row(f"matrix products / a step, {label}", "ratio", [measured.baseline_share], limit=1.0)
    yield row(f"c, {label}", "steps", [measured.draft_cost], better="lower")
    yield row(f"v of {N}, {label}", "steps", [measured.verify_cost], better="lower")
    yield row(f"accepted per position, {label}", "ratio", [passed])
    yield row(f"speculation / autoregression, {label}", "ratio", speedups, limit=predicted)
    goal = setting.goal(PREDICTED_SHARE)
    yield row(f"speculation measured / predicted, {label}", "ratio", ratios, goal, limit=1.0)


def check_counts(generation: Generation, prompt: list[int], label: str) -> None:
    """Check that a text goes on counting where its prompt ends.

    Raises:
        RuntimeError: It does not.
    """
    expected = [prompt[-1] + 1 + index for index in range(len(generation.tokens))]
    if generation.tokens != expected:
        raise RuntimeError(f"{label}: wrote {generation.tokens[:8]}, not {expected[:8]}")
