"""Who decodes against whom, and the costs taken between the rounds.

Knows decoders and backends: not what the numbers come to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import accumulate
from math import prod
from operator import mul
from pathlib import Path
from typing import Any, cast

import torch
from transformers import GenerationConfig

from benchmarks import machine_limit
from benchmarks.batches import Batches
from benchmarks.prompts import COPY, BenchmarkPrompt
from benchmarks.rounds import Field
from soaes.decode.autoregressive import Autoregressive
from soaes.decode.backends.base import Backend, BackendSettings, DecoderPair, model_folders
from soaes.decode.backends.native import NativePair, open_native
from soaes.decode.backends.transformers_backend import Assisted, open_transformers
from soaes.decode.base import AcceptanceTest, Decoder, Rule
from soaes.decode.costs import measure_costs
from soaes.decode.engine import Engine
from soaes.decode.prompt_lookup import PromptLookup
from soaes.decode.settings import SamplingSettings, SpeculativeSettings
from soaes.decode.speculative import Speculative
from soaes.decode.verify import BLOCK, block, rejection
from soaes.metrics.acceptance import MeasuredCosts

# as in conf/sampling
MODES = {"greedy": SamplingSettings(0.0, 1.0), "top-p .7": SamplingSettings(1.0, 0.7)}
LENGTHS = range(1, 9)  # n
PAPER_N = 3
BLOCKS = (3, 5, 8)  # n at which the rule `block` runs beside rejection
PLAIN = "autoregression"
GENERATE = "generate()"
ASSISTED = "assisted generation"
ASSISTED_DEFAULT = "assisted generation with its own defaults"
SHAPES = {"target": (6, 512), "draft": (2, 96)}  # layers and width of the wide pair
WIDE_PROMPTS, WIDE_TOKENS = 4, 48

Contenders = dict[str, Decoder]


class Weighed:
    """Rejection that notes what it and the rule `block` expect of every block that it tests.

    Both are judged on the same drafts, without the luck of a draw.
    """

    def __init__(self) -> None:
        self.block_tokens = 0.0  # expected tokens since the last call of `ratio`
        self.rejection_tokens = 0.0
        self.rule = Rule("weighed", exact=True, test=self.test)

    def test(
        self, p_rows: torch.Tensor, q_rows: torch.Tensor, drafted: list[int]
    ) -> AcceptanceTest:
        """Test a block by rejection."""
        test = rejection(p_rows, q_rows, drafted)
        accept_probs = block(p_rows, q_rows, drafted).accept_probs
        # tokens up to the last test passed: token i is kept if any test from i on passes
        kept_probs = [
            1 - prod(1 - prob for prob in accept_probs[position:])
            for position in range(len(drafted))
        ]
        self.block_tokens += 1 + sum(kept_probs)
        self.rejection_tokens += 1 + sum(accumulate(test.accept_probs, mul))  # up to the first
        return test

    def ratio(self) -> float:
        """Return block's expectation over rejection's since the last call."""
        ratio = self.block_tokens / self.rejection_tokens
        self.block_tokens = self.rejection_tokens = 0.0
        return ratio


class Race:
    """Every field of contenders, over models in folders and one pair of random models.

    fields: By name: `transformers`, `rules`, `wide`, and for each mode its own and `lookup MODE`.
    costs: Of each counted round, for each mode and `wide`.
    batches: Autoregression and speculation of several texts together, greedy.
    rates: Of each counted round, bytes a second read at the size of the target, of the wide target,
        and of memory.
    expected: Of each counted round, for the n of BLOCKS, what the rule `block` expects over what
        rejection does.

    Args:
        opened: Closes the backends.
        target: Folder of the target.
        draft: Folder of the draft.
        eos: Id of the token that ends a text.
        prompts: What is decoded; those of kind `copy` by lookup alone.
        shapes: (layers, width) of the random pair.
    """

    def __init__(
        self,
        opened: ExitStack,
        target: Path,
        draft: Path,
        eos: int,
        prompts: list[BenchmarkPrompt],
        shapes: dict[str, tuple[int, int]] = SHAPES,
    ) -> None:
        greedy = _open(opened, open_native, max(LENGTHS), target, draft, eos)
        engines = cast(NativePair, greedy).method.engines
        self.pairs = {
            mode: _pair(engines, eos, sampling, greedy.positions)
            for mode, sampling in MODES.items()
        }
        self.pairs["wide"] = machine_limit.random_pair(
            **shapes,
            vocabulary=engines[0].vocab,
            n=PAPER_N,
            eos=eos,
            positions=greedy.positions,
        )
        self.rules = {n: Weighed() for n in BLOCKS}
        asked_once = [prompt for prompt in prompts if prompt.kind != COPY]
        wide_prompts = [
            replace(prompt, max_new_tokens=WIDE_TOKENS) for prompt in asked_once[:WIDE_PROMPTS]
        ]
        sampled = self.pairs["top-p .7"]
        weighed: Contenders = {
            f"weighed n={n}": _speculative(sampled, eos, n, rule=weighing.rule)
            for n, weighing in self.rules.items()
        }
        wide = self.pairs["wide"]
        frameworks = _ours(self.pairs["greedy"], eos, [PAPER_N])
        frameworks |= _theirs(opened, target, draft, eos)
        self.fields = {"transformers": Field(frameworks, asked_once)}
        for mode in MODES:
            self.fields[mode] = Field(_drafts(self.pairs[mode], eos), asked_once)
        self.fields["rules"] = Field(weighed, asked_once)
        for mode in MODES:
            self.fields[f"lookup {mode}"] = Field(_lookups(self.pairs[mode], eos), prompts)
        self.fields["wide"] = Field(
            {PLAIN: wide.baseline, speculation_name(PAPER_N): wide.method}, wide_prompts
        )
        in_batches = {
            PLAIN: self.pairs["greedy"].baseline,
            speculation_name(PAPER_N): _speculative(self.pairs["greedy"], eos, PAPER_N),
        }
        self.batches = Batches(in_batches, asked_once)
        self.costs: dict[str, list[MeasuredCosts]] = {name: [] for name in self.pairs}
        self.rates: list[dict[str, float]] = []
        self.expected: list[dict[int, float]] = []

    def run(self, number: int, counted: bool) -> None:
        """Run one round of every field, and then time a block's costs as they are now.

        Args:
            number: The round's number.
            counted: Whether its results are kept.
        """
        for field in self.fields.values():
            field.run(number, counted)
        self.batches.run(number, counted)
        expected = {n: weighing.ratio() for n, weighing in self.rules.items()}
        if not counted:
            return
        self.expected.append(expected)
        for name, pair in self.pairs.items():
            field = self.fields[name]
            prompt_ids = [prompt.ids for prompt in field.prompts]
            costs = measure_costs(pair, prompt_ids, field.generations[PLAIN][-1], seed=number)
            assert costs is not None, "our own decoders can be timed"
            self.costs[name].append(costs)
        sizes = {
            name: machine_limit.weight_bytes(self.pairs[name].baseline.target)
            for name in ("greedy", "wide")
        }
        sizes["memory"] = machine_limit.FAR
        self.rates.append({name: machine_limit.read_rate(size) for name, size in sizes.items()})


def speculation_name(n: int) -> str:
    """Return the name of the contender with n drafted tokens in a block."""
    return f"speculation n={n}"


def _open(
    opened: ExitStack, open_backend: Backend, n: int, target: Path, draft: Path, eos: int
) -> DecoderPair:
    """A backend's greedy speculation with n drafted tokens in a block."""
    decode = SpeculativeSettings(n)
    settings = BackendSettings(decode, MODES["greedy"], eos, dtype="float32")
    return opened.enter_context(open_backend(model_folders(target, draft, decode), settings))


def _pair(
    engines: Sequence[Engine], eos: int, sampling: SamplingSettings, positions: int
) -> NativePair:
    """The longest block, over engines that all decoders of ours share.

    There is one copy of the weights in the caches.
    """
    target, draft = engines
    temperature, top_p = sampling.temperature, sampling.top_p
    longest = Speculative(target, draft, max(LENGTHS), temperature, top_p, eos)
    baseline = Autoregressive(target, temperature, top_p, eos)
    return NativePair(longest, baseline, longest.n, positions)


def _speculative(pair: NativePair, eos: int, n: int, **options: Any) -> Speculative:
    """Speculation with n drafted tokens over a pair's engines."""
    target, draft = pair.method.engines
    baseline = pair.baseline
    return Speculative(target, draft, n, baseline.temperature, baseline.top_p, eos, **options)


def _ours(pair: NativePair, eos: int, lengths: Iterable[int]) -> Contenders:
    """Autoregression, and speculation for each n."""
    contenders: Contenders = {PLAIN: pair.baseline}
    for n in lengths:
        contenders[speculation_name(n)] = _speculative(pair, eos, n)
    return contenders


def _drafts(pair: NativePair, eos: int) -> Contenders:
    """Every n, n chosen block by block, and under sampling the other exact rule worth a row."""
    contenders = _ours(pair, eos, LENGTHS)
    adaptive = _speculative(pair, eos, max(LENGTHS), adaptive=True)
    contenders["adaptive speculation"] = adaptive
    if pair.baseline.temperature:
        for n in BLOCKS:
            contenders[f"block n={n}"] = _speculative(pair, eos, n, rule=BLOCK)
    return contenders


def _lookups(pair: NativePair, eos: int) -> Contenders:
    """Autoregression, and prompt lookup with a fixed and with an adaptive n."""
    target = pair.method.target
    temperature, top_p = pair.baseline.temperature, pair.baseline.top_p
    return {
        PLAIN: pair.baseline,
        "lookup": PromptLookup(target, 3, 3, temperature, top_p, eos),
        "adaptive lookup": PromptLookup(target, 5, 3, temperature, top_p, eos, adaptive=True),
    }


def _theirs(opened: ExitStack, target: Path, draft: Path, eos: int) -> Contenders:
    """transformers on equal terms (n drafted tokens in every block), and with its defaults."""
    pinned = _open(opened, open_transformers, PAPER_N, target, draft, eos)
    default = _open(opened, open_transformers, PAPER_N, target, draft, eos)
    assistant = cast(Assisted, default.method).draft
    assert assistant is not None
    assistant.generation_config = GenerationConfig()  # what is not set is the library's choice
    return {
        GENERATE: pinned.baseline,
        ASSISTED: pinned.method,
        ASSISTED_DEFAULT: default.method,
    }
