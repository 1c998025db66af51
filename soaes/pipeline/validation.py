"""Checks of what a user may set: run when a job is composed, so that a slip costs nothing.

Settings (frozen dataclasses in modules called `settings`) call the helpers below in their
`__post_init__`. All messages have one form: `name=value: what it must be (what it is; way out)`.
Imports nothing of ours.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeGuard

# ----------------------------------------------------------------------------- helpers for checks


def check_whole(name: str, value: object, least: int, what: str) -> None:
    """Check that a setting is a whole number of at least `least`; `8.0` counts as 8.

    Args:
        name: The setting's name, as it is written in conf/.
        value: Its value.
        least: The smallest value allowed.
        what: What the setting is and, where useful, the way out: "the rows of a step".

    Raises:
        ValueError: It is no such number; a bool, NaN and infinity never are.
    """
    if not _is_number(value) or value < least or value != int(value):
        raise _error(name, value, f"must be a whole number of at least {least}", what)


def check_at_least(name: str, value: object, least: float, what: str) -> None:
    """Check that a setting is a number (whole or not) of at least `least`; see `check_whole`."""
    if not _is_number(value) or value < least:
        raise _error(name, value, f"must be a number of at least {least:g}", what)


def check_positive(name: str, value: object, what: str) -> None:
    """Check that a setting is a number above zero; see `check_whole`."""
    if not _is_number(value) or value <= 0:
        raise _error(name, value, "must be positive", what)


def check_in_range(name: str, value: object, interval: str, what: str) -> None:
    """Check that a setting lies in an interval as mathematics writes it: `[0, 1]`, `(0, 1]`.

    See `check_whole` for the other arguments and for what is refused.
    """
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    inside = _is_number(value) and low <= value <= high
    if inside and interval.startswith("("):
        inside = value != low
    if inside and interval.endswith(")"):
        inside = value != high
    if not inside:
        raise _error(name, value, f"must lie in {interval}", what)


def check_one_of(name: str, value: object, options: Sequence[str], what: str = "") -> None:
    """Check that a setting is one of a few words."""
    if not isinstance(value, str) or value not in options:
        raise _error(name, value, f"must be one of {', '.join(options)}", what)


def check_flag(name: str, value: object, what: str = "") -> None:
    """Check that a setting is a bool; Hydra reads `no` as a word, and a word counts as true."""
    if not isinstance(value, bool):
        raise _error(name, value, "must be true or false", what)


def _is_number(value: object) -> TypeGuard[float]:
    """Tell a finite number from everything else; a bool is no number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value)


def _error(name: str, value: object, rule: str, what: str) -> ValueError:
    explanation = f" ({what})" if what else ""
    written = "null" if value is None else value
    return ValueError(f"{name}={written}: {rule}{explanation}")


# ------------------------------------------------------ the scalar arguments of every stage
#
# One dataclass per stage or group of stages, with the arguments that are checked when a job is
# composed; `check_stage` looks it up by the stage's name and leaves out what it does not list.

DTYPES = ("float32", "bfloat16", "float16")
SPLITS = ("train", "dev", "test")
SCORINGS = ("letter", "text")


def check_seed(seed: object) -> None:
    """Check a random seed."""
    check_whole("seed", seed, 0, "a random seed")


def check_per_task(name: str, values: object, what: str) -> None:
    """Check whole numbers of at least 1 by task, as in `{qa: 48, report: 160}`."""
    if not isinstance(values, Mapping):
        raise _error(name, values, "must be one number per task, as in {qa: 48, report: 160}", what)
    for task, value in values.items():
        check_whole(f"{name}.{task}", value, 1, what)


@dataclass(frozen=True)
class FilesArguments:
    """files: read a user's own data."""

    seed: int

    def __post_init__(self) -> None:
        check_seed(self.seed)


@dataclass(frozen=True)
class WorldArguments:
    """world: write the built-in synthetic corpus; soaes.world checks sizes against its names."""

    seed: int
    entities: int
    famous: int
    enterprises: int
    docs_per_entity: int
    docs_per_enterprise: int
    mcq_per_fact: int
    cloze_per_fact: int
    dialogues: int
    questions: int
    exam_questions: int
    unseen_enterprises: int = 0
    unseen_questions: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for field in fields(self):
            check_whole(field.name, getattr(self, field.name), 0, "a size of the world")


@dataclass(frozen=True)
class TokenizerArguments:
    """tokenizer: train a tokenizer."""

    vocabulary: int

    def __post_init__(self) -> None:
        check_whole("vocabulary", self.vocabulary, 1, "the ids of the tokenizer")


@dataclass(frozen=True)
class PackArguments:
    """pack: tokenize documents and pack them into rows."""

    context: int
    replay: float = 0.0

    def __post_init__(self) -> None:
        check_whole("context", self.context, 16, "the tokens of a row")
        share = "general text's share of the tokens; 0 is CPT on the domain alone, as in the paper"
        check_in_range("replay", self.replay, "[0, 1)", share)


@dataclass(frozen=True)
class PretrainArguments:
    """pretrain: train a model from random weights."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    context: int
    seed: int

    def __post_init__(self) -> None:
        check_whole("layers", self.layers, 1, "the layers of the model")
        check_whole("width", self.width, 1, "the width of the hidden states")
        check_whole("heads", self.heads, 1, "the attention heads")
        check_whole("kv_heads", self.kv_heads, 1, "the heads of keys and values")
        check_whole("context", self.context, 16, "the tokens of a row")
        check_seed(self.seed)


@dataclass(frozen=True)
class TrainArguments:
    """instruct, cpt and sft: train a model further."""

    seed: int

    def __post_init__(self) -> None:
        check_seed(self.seed)


@dataclass(frozen=True)
class DistillArguments:
    """distill: train the draft on the teacher's soft targets and on the tokens (Eq. 1-2)."""

    alpha: float
    tau: float
    seed: int

    def __post_init__(self) -> None:
        check(alpha=self.alpha, tau=self.tau)
        check_seed(self.seed)


@dataclass(frozen=True)
class TeachArguments:
    """teach and teach_vllm: store the teacher's soft targets."""

    seed: int = 0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_one_of("dtype", self.dtype, DTYPES)


@dataclass(frozen=True)
class EvaluateArguments:
    """evaluate: answer questions and compare the answers with the references."""

    split: str
    limit: int | None
    max_new_tokens: Mapping[str, int]
    unseen_samples: int | None = 0

    def __post_init__(self) -> None:
        check_one_of("split", self.split, SPLITS)
        if self.limit is not None:
            check_whole("limit", self.limit, 1, "the questions to answer; null for all")
        if self.unseen_samples is not None:
            questions = "the questions about enterprises set apart; null for all, 0 for none"
            check_whole("unseen_samples", self.unseen_samples, 0, questions)
        check_per_task("max_new_tokens", self.max_new_tokens, "the longest answer, in tokens")


@dataclass(frozen=True)
class BenchmarkArguments:
    """benchmark: sit the multiple-choice exams."""

    shots: int
    limit: int | None = None
    scoring: str = "letter"

    def __post_init__(self) -> None:
        check_whole("shots", self.shots, 0, "the examples that an exam shows")
        if self.limit is not None:
            check_whole("limit", self.limit, 1, "the questions to answer; null for all")
        check_one_of("scoring", self.scoring, SCORINGS)


@dataclass(frozen=True)
class DecodingArguments:
    """target_trace and acceptance: generate answers and look at every token."""

    prompts: Mapping[str, int]
    max_new_tokens: Mapping[str, int]
    dtype: str
    seed: int
    split: str = "dev"

    def __post_init__(self) -> None:
        check_per_task("prompts", self.prompts, "the prompts that are answered")
        check_per_task("max_new_tokens", self.max_new_tokens, "the longest answer, in tokens")
        check_one_of("dtype", self.dtype, DTYPES)
        check_seed(self.seed)
        check_one_of("split", self.split, SPLITS)


@dataclass(frozen=True)
class PredictArguments:
    """predict_acceptance: predict what a draft gains at block sizes 1 to max_n."""

    max_n: int

    def __post_init__(self) -> None:
        check_whole("max_n", self.max_n, 1, "the largest block size that is predicted")


@dataclass(frozen=True)
class SpeedArguments:
    """speed: time a decoder against its own autoregressive baseline."""

    prompts: Mapping[str, int]
    max_new_tokens: Mapping[str, int]
    rounds: int
    threads: int
    dtype: str
    seed: int
    warmup: int = 1

    def __post_init__(self) -> None:
        check_per_task("prompts", self.prompts, "the prompts that are timed")
        check_per_task("max_new_tokens", self.max_new_tokens, "the longest answer, in tokens")
        check_whole("rounds", self.rounds, 3, "timed rounds, of which the median counts")
        check_whole("threads", self.threads, 1, "the CPU threads of the stage")
        check_one_of("dtype", self.dtype, DTYPES)
        check_seed(self.seed)
        check_whole("warmup", self.warmup, 0, "rounds that are not timed")


STAGE_ARGUMENTS: dict[str, Callable[..., object] | None] = {
    "fetch": None,  # nothing to check
    "files": FilesArguments,
    "world": WorldArguments,
    "tokenizer": TokenizerArguments,
    "pack": PackArguments,
    "pretrain": PretrainArguments,
    "instruct": TrainArguments,
    "cpt": TrainArguments,
    "sft": TrainArguments,
    "distill": DistillArguments,
    "teach": TeachArguments,
    "teach_vllm": TeachArguments,
    "evaluate": EvaluateArguments,
    "benchmark": BenchmarkArguments,
    "target_trace": DecodingArguments,
    "predict_acceptance": PredictArguments,
    "acceptance": DecodingArguments,
    "speed": SpeedArguments,
    "export": None,  # nothing to check
}


def check_stage(stage: str, arguments: Mapping[str, Any]) -> None:
    """Check the scalar arguments of a stage.

    Args:
        stage: The stage's name; one that is not in STAGE_ARGUMENTS is not checked.
        arguments: All its arguments.

    Raises:
        ValueError: One is out of its range.
    """
    dataclass_of_stage = STAGE_ARGUMENTS.get(stage)
    if dataclass_of_stage is None:
        return
    known = inspect.signature(dataclass_of_stage).parameters
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in arguments:
            raise ValueError(f"{stage}: it needs {name}, which was deleted; set {name} again")
    dataclass_of_stage(**{key: value for key, value in arguments.items() if key in known})


# -------------------------------------------------------------------- the loss of distillation

DIVERGENCES = ("forward", "reverse", "total_variation")


def check(**values: Any) -> None:
    """Check settings of distillation by name, as losses and modules are given them.

    Names without a rule here are not checked.

    Raises:
        ValueError: One is out of its range.
    """
    for name, value in values.items():
        rule = _DISTILLATION.get(name)
        if rule is not None:
            rule(name, value)


def _check_alpha(name: str, value: object) -> None:
    check_in_range(name, value, "[0, 1]", "the KD weight; 0 is plain SFT, 1 distillation alone")


def _check_tau(name: str, value: object) -> None:
    check_positive(name, value, "the temperature of distillation; the paper sweeps 1, 2, 3, 5")


_DISTILLATION: dict[str, Callable[[str, object], None]] = {
    "alpha": _check_alpha,
    "tau": _check_tau,
    "divergence": lambda name, value: check_one_of(name, value, DIVERGENCES),
    "tau_squared": check_flag,
    "dtype": lambda name, value: check_one_of(name, value, DTYPES),
}


# ------------------------------------------------------------------ what conf/ may instantiate

# Hydra itself would call anything that a `_target_` names.
OURS = ("soaes.", "pytorch_lightning.strategies.")


def check_target(target: str) -> str:
    """Return a `_target_` that may be called.

    Raises:
        ValueError: It is neither ours nor a Lightning strategy.
    """
    if not str(target).startswith(OURS):
        raise ValueError(
            f"_target_: {target} is not ours to call; it must start with {' or '.join(OURS)}"
        )
    return target
