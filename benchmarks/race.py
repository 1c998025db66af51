"""Who decodes against whom, and the costs taken between the rounds. Knows decoders and backends: not what the numbers come to."""

from contextlib import ExitStack
from functools import partial
from itertools import accumulate
from math import prod
from operator import mul
from pathlib import Path

from transformers import GenerationConfig

from benchmarks import machine_limit
from benchmarks.rounds import Field
from soaes.decode.autoregressive import Autoregressive
from soaes.decode.backends import native, transformers_backend
from soaes.decode.backends.base import DecoderPair, model_folders
from soaes.decode.base import Verdict
from soaes.decode.costs import measure_costs
from soaes.decode.prompt_lookup import PromptLookup
from soaes.decode.speculative import Speculative
from soaes.decode.verify import block, rejection

MODES = {
    "greedy": {"temperature": 0.0, "top_p": 1.0},
    "top-p .7": {"temperature": 1.0, "top_p": 0.7},
}  # conf/sampling
LENGTHS = range(1, 9)  # n
PAPER_N = 3
BLOCKS = (3, 5, 8)  # n at which the rule `block` runs beside rejection
PLAIN, GENERATE, ASSISTED, ASSISTED_DEFAULT = (
    "autoregression",
    "generate()",
    "assisted generation",
    "assisted generation with its own defaults",
)
SHAPES = {"target": (6, 512), "draft": (2, 96)}  # layers, width: the wide pair's
WIDE_QUESTIONS, WIDE_TOKENS = 4, 48


class Weighed:
    """Rejection, which notes what it and the rule `block` expect of every block that it decides: the same drafts, no luck of a draw."""

    def __init__(self):
        self.sums = [0.0, 0.0]  # tokens that block, and rejection, expect

    def __call__(self, p_rows, q_rows, drafted, generator) -> Verdict:
        if drafted:
            whole, single = (
                rule.law(p_rows, q_rows, drafted).chances for rule in (block, rejection)
            )
            self.sums[0] += 1 + sum(
                1 - prod(1 - chance for chance in whole[at:]) for at in range(len(whole))
            )  # up to the last test passed
            self.sums[1] += 1 + sum(accumulate(single, mul))  # up to the first failed
        return rejection(p_rows, q_rows, drafted, generator)

    def ratio(self) -> float:
        """Block's expectation over rejection's since the last call."""
        (whole, single), self.sums = self.sums, [0.0, 0.0]
        return whole / single


class Race:
    """Every field of contenders, over models in folders and one pair of random models.

    fields: by name, `transformers`, `wide`, and for each mode its own and `lookup MODE`; costs: of each counted round, for each mode and `wide`;
    rates: of each counted round, bytes a second read at the size of the target, of the wide target, and of memory; expected: of each counted
    round, for the n of BLOCKS, what the rule `block` expects over what rejection does."""

    def __init__(
        self,
        opened: ExitStack,
        target: Path,
        draft: Path,
        eos: int,
        questions: list[dict],
        shapes: dict[str, tuple[int, int]] = SHAPES,
    ):
        greedy = _open(
            opened, native.open_native, partial(Speculative, n=max(LENGTHS)), target, draft, eos
        )
        engines = greedy.method.engines
        self.pairs = {
            mode: _pair(engines, eos, sampling, greedy.positions)
            for mode, sampling in MODES.items()
        }
        self.pairs["wide"] = machine_limit.random_pair(
            **shapes, vocabulary=engines[0].vocab, n=PAPER_N, eos=eos, positions=greedy.positions
        )
        self.rules = {n: Weighed() for n in BLOCKS}
        asked = [
            question for question in questions if question["kind"] != "copy"
        ]  # these are lookup's
        wide = [question | {"most": WIDE_TOKENS} for question in asked[:WIDE_QUESTIONS]]
        self.fields = {
            "transformers": Field(
                {
                    **_ours(self.pairs["greedy"], eos, [PAPER_N]),
                    **_theirs(opened, target, draft, eos),
                },
                asked,
            ),
            **{mode: Field(_drafts(self.pairs[mode], eos), asked) for mode in MODES},
            "rules": Field(
                {
                    f"weighed n={n}": _speculative(self.pairs["top-p .7"], eos, n, rule=rule)
                    for n, rule in self.rules.items()
                },
                asked,
            ),
            **{
                f"lookup {mode}": Field(_lookups(self.pairs[mode], eos), questions)
                for mode in MODES
            },
            "wide": Field(
                {PLAIN: self.pairs["wide"].baseline, named(PAPER_N): self.pairs["wide"].method},
                wide,
            ),
        }
        self.costs = {name: [] for name in self.pairs}
        self.rates, self.expected = [], []

    def run(self, number: int, counted: bool) -> None:
        """One round of every field, and then the costs of a block as they are now."""
        for field in self.fields.values():
            field.run(number, counted)
        expected = {n: rule.ratio() for n, rule in self.rules.items()}
        if counted:
            self.expected.append(expected)
            for name, pair in self.pairs.items():
                field = self.fields[name]
                self.costs[name].append(
                    measure_costs(pair, field.questions, field.made[PLAIN][-1], seed=number)
                )
            sizes = {
                name: machine_limit.weight_bytes(self.pairs[name].baseline.target)
                for name in ("greedy", "wide")
            }
            self.rates.append(
                {
                    name: machine_limit.read_rate(size)
                    for name, size in (sizes | {"memory": machine_limit.FAR}).items()
                }
            )


def named(n: int) -> str:
    return f"speculation n={n}"


def _open(
    opened: ExitStack, open_backend, decode: partial, target: Path, draft: Path, eos: int
) -> DecoderPair:
    settings = {
        "eos": eos,
        "sampling": MODES["greedy"],
        "dtype": "float32",
        "device": "cpu",
        "threads": 1,
    }
    return opened.enter_context(
        open_backend(decode, model_folders(target, draft, decode), **settings)
    )


def _pair(engines, eos: int, sampling: dict, positions: int) -> DecoderPair:
    """The longest block over engines that all decoders of ours share: one copy of the weights in the caches."""
    longest = Speculative(*engines, n=max(LENGTHS), eos=eos, **sampling)
    return DecoderPair(
        longest,
        Autoregressive(engines[0], eos=eos, **sampling),
        longest.n,
        positions,
        timeable=True,
    )


def _speculative(pair: DecoderPair, eos: int, n: int, **settings) -> Speculative:
    method = pair.method
    return Speculative(
        *method.engines,
        n=n,
        temperature=method.temperature,
        top_p=method.top_p,
        eos=eos,
        **settings,
    )


def _ours(pair: DecoderPair, eos: int, lengths) -> dict:
    return {PLAIN: pair.baseline, **{named(n): _speculative(pair, eos, n) for n in lengths}}


def _drafts(pair: DecoderPair, eos: int) -> dict:
    """Every n, n chosen block by block, and under sampling the other exact rule that is worth a row."""
    found = _ours(pair, eos, LENGTHS) | {
        "adaptive speculation": _speculative(pair, eos, max(LENGTHS), adaptive=True)
    }
    blocks = {f"block n={n}": _speculative(pair, eos, n, rule=block) for n in BLOCKS}
    return found | (blocks if pair.method.temperature else {})


def _lookups(pair: DecoderPair, eos: int) -> dict:
    method = pair.method
    shared = {"temperature": method.temperature, "top_p": method.top_p, "eos": eos}
    kinds = {
        "lookup": partial(PromptLookup, n=3, max_ngram=3),
        "adaptive lookup": partial(PromptLookup, n=5, max_ngram=3, adaptive=True),
    }
    return {
        PLAIN: pair.baseline,
        **{name: kind(method.target, **shared) for name, kind in kinds.items()},
    }


def _theirs(opened: ExitStack, target: Path, draft: Path, eos: int) -> dict:
    """transformers on equal terms (n drafted tokens in every block), and as it comes."""
    pinned, default = (
        _open(
            opened,
            transformers_backend.open_transformers,
            partial(Speculative, n=PAPER_N),
            target,
            draft,
            eos,
        )
        for _ in range(2)
    )
    default.method.options[
        "assistant_model"
    ].generation_config = GenerationConfig()  # what is not set is the library's choice
    return {GENERATE: pinned.baseline, ASSISTED: pinned.method, ASSISTED_DEFAULT: default.method}
