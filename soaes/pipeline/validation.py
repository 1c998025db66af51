"""Checks of what a user may set: run when a job is composed, so that a slip costs nothing.

Settings (frozen dataclasses in modules called `settings`) call the helpers below in their
`__post_init__`. Their messages have one form: `name=value: what it must be (what it is; way out)`.
Imports nothing of ours.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
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
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def _error(name: str, value: object, rule: str, what: str) -> ValueError:
    explanation = f" ({what})" if what else ""
    written = "null" if value is None else value
    if isinstance(value, str) and _reads_as_number(value):
        rule += ", and this is text: leave the quotes out"
    return ValueError(f"{name}={written}: {rule}{explanation}")


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def nearest(word: str, known: list[str]) -> str:
    """Return `Did you mean WORD?` for the nearest known word, or the list of them all."""
    others = sorted({name for name in known if name != word})
    if not others:
        return "There is none"
    near = get_close_matches(word, others, 1, 0.5)
    return f"Did you mean {near[0]}?" if near else f"There are: {', '.join(others)}"


# ------------------------------------------------------ the scalar arguments of every stage
#
# One dataclass per stage or group of stages, with the arguments that are checked when a job is
# composed; `check_stage` looks it up by the stage's name and leaves out what it does not list.

DTYPES = ("float32", "bfloat16", "float16")
SPLITS = ("train", "dev", "test")
SCORINGS = ("letter", "text")
SOURCES = ("general", "corpus", "dialogue", "qa")
TASKS = ("qa", "report")
CHAT_FORMATS = ("auto", "chatml", "own")


def check_seed(seed: object) -> None:
    """Check a random seed."""
    check_whole("seed", seed, 0, "a random seed")


def check_sample_seed(seed: object) -> None:
    """Check the seed that draws what is measured."""
    check_whole("sample_seed", seed, 0, "the seed that draws the samples")


def check_numbers(name: str, values: object, what: str, count: int | None = None) -> None:
    """Check that a setting is a list of numbers, of `count` if that is given, else of any but none.

    Args:
        name: The setting's name.
        values: Its value.
        what: What it must be, as the error says it: "two numbers, as in [0.9, 0.95]".
        count: The numbers that it must hold.

    Raises:
        ValueError: It is no such list.
    """
    if isinstance(values, Sequence) and not isinstance(values, str):
        right_count = len(values) > 0 if count is None else len(values) == count
        if right_count and all(_is_number(value) for value in values):
            return
    raise _error(name, values, f"must be {what}", "")


def check_per_task(name: str, values: object, what: str) -> None:
    """Check whole numbers of at least 1 by task, as in `{qa: 48, report: 160}`."""
    if not isinstance(values, Mapping):
        raise _error(name, values, "must be one number per task, as in {qa: 48, report: 160}", what)
    for task, value in values.items():
        if task not in TASKS:
            raise _error(f"{name}.{task}", value, f"the tasks are {', '.join(TASKS)}", what)
        check_whole(f"{name}.{task}", value, 1, what)


def check_prompts(prompts: object, max_new_tokens: object) -> None:
    """Check how many prompts of each task are answered, and the longest answer of each."""
    check_per_task("prompts", prompts, "the prompts that are answered")
    check_per_task("max_new_tokens", max_new_tokens, "the longest answer, in tokens")
    assert isinstance(prompts, Mapping) and isinstance(max_new_tokens, Mapping)
    for task, count in prompts.items():
        if task not in max_new_tokens:
            raise _error(
                f"prompts.{task}", count, f"max_new_tokens.{task} is missing", "set it as well"
            )


def check_words(name: str, values: object, what: str, options: Sequence[str] = ()) -> None:
    """Check that a setting is a list of words, of a few if there are `options`.

    A word instead of a list is refused: it would be read letter by letter.
    """
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise _error(name, values, "must be a list, as in [a, b]", what)
    for value in values:
        if not isinstance(value, str):
            raise _error(name, value, "must be a list of words", what)
        if options:
            check_one_of(name, value, options, what)


def check_alpha(alpha: object) -> None:
    """Check the weight of the divergence in Eq. 2."""
    check_in_range("alpha", alpha, "[0, 1]", "the KD weight; 0 is plain SFT, 1 distillation alone")


def check_tau(tau: object) -> None:
    """Check the temperature of Eq. 1."""
    check_positive("tau", tau, "the temperature of distillation; the paper sweeps 1, 2, 3, 5")


def check_function(name: str, path: object) -> None:
    """Check that a dotted path names a function of a module that can be imported.

    The module is looked for and its source read; nothing of it runs, but for the packages that it
    lies in.

    Raises:
        ValueError: There is no such module, or nothing of that name in its source.
    """
    way_out = (
        "name a function as PACKAGE.MODULE.FUNCTION, whose folder is the current one or in "
        "PYTHONPATH"
    )
    module, _, function = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    try:
        spec = find_spec(module) if module else None
    except ImportError:  # of a package that the module would lie in
        spec = None
    if spec is None:
        raise _error(name, path, f"cannot be imported; {way_out}", "")
    source = Path(spec.origin or "")
    if source.suffix == ".py" and function not in _names_in(source):
        raise _error(name, path, f"{source.name} has no {function}; {way_out}", "")


def _names_in(source: Path) -> set[str]:
    """Return the words of a source file: what it defines, assigns or imports is among them."""
    return set(re.findall(r"\w+", source.read_text(encoding="utf-8", errors="replace")))


def check_revision(revision: object) -> None:
    """Check the `revision` of a node in conf/."""
    check_whole("revision", revision, 1, "raised by one when a function changes its meaning")


@dataclass(frozen=True)
class FilesArguments:
    """files and held_out_questions: read a user's own data."""

    seed: int
    held_out: float = 0.2
    split_one_in: int = 10

    def __post_init__(self) -> None:
        check_seed(self.seed)
        general = "the corpus's share that becomes general text"
        check_in_range("held_out", self.held_out, "(0, 1)", general)
        questions = "of so many train questions one is split off"
        check_whole("split_one_in", self.split_one_in, 2, questions)


@dataclass(frozen=True)
class GivenModelArguments:
    """fetch and local_model: take a model that was not trained here."""

    chat_format: str = "auto"

    def __post_init__(self) -> None:
        check_one_of("chat_format", self.chat_format, CHAT_FORMATS, "how conversations are written")


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
    short_questions: int
    questions: int
    exam_questions: int
    unseen_enterprises: int = 0
    unseen_questions: int = 0
    report_share: float = 0.03
    dev_share: float = 0.1
    test_share: float = 0.1

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_share"):
                check_in_range(field.name, value, "[0, 1)", "a share of the questions")
            else:
                check_whole(field.name, value, 0, "a size of the world")
        if self.dev_share + self.test_share >= 1:
            rule = f"must be less than 1 together with test_share={self.test_share}"
            raise _error("dev_share", self.dev_share, rule, "the rest is for train; lower either")


@dataclass(frozen=True)
class TokenizerArguments:
    """tokenizer: train a tokenizer."""

    vocabulary: int
    alphabet_size: int = 800
    alphabet_weight: int = 20

    def __post_init__(self) -> None:
        check_whole("vocabulary", self.vocabulary, 512, "bytes and special tokens come first")
        learnt = "the most frequent characters that are learnt from every text; 0 for none"
        check_whole("alphabet_size", self.alphabet_size, 0, learnt)
        seen = "how often each of the alphabet's characters counts as seen"
        check_whole("alphabet_weight", self.alphabet_weight, 0, seen)


@dataclass(frozen=True)
class PackArguments:
    """pack: tokenize documents and pack them into rows."""

    sources: Sequence[str]
    categories: Sequence[str] | None
    context: int
    replay: float = 0.0
    replay_seed: int = 0
    dev_one_in: int = 50
    dev_prompts: int = 16

    def __post_init__(self) -> None:
        check_words("sources", self.sources, "what is packed into rows", SOURCES)
        if not self.sources:
            raise _error("sources", "[]", f"must name one or more of {', '.join(SOURCES)}", "")
        if self.categories is not None:
            kept = "the dialogue categories to keep; null for all"
            check_words("categories", self.categories, kept)
        check_whole("context", self.context, 16, "the tokens of a row")
        share = "general text's share of the tokens; 0 is CPT on the domain alone, as in the paper"
        check_in_range("replay", self.replay, "[0, 1)", share)
        check_whole("replay_seed", self.replay_seed, 0, "a random seed")
        held_out = "one document in so many is for validation, and the others are for training"
        check_whole("dev_one_in", self.dev_one_in, 2, held_out)
        prompts = "the conversations of the validation Rouge-1; 0 for none"
        check_whole("dev_prompts", self.dev_prompts, 0, prompts)


@dataclass(frozen=True)
class PretrainArguments:
    """pretrain: train a model from random weights."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    context: int
    seed: int
    mlp_ratio: float = 3
    position_factor: int = 4
    embedding_std: float = 1.0
    head_std: float = 0.02

    def __post_init__(self) -> None:
        check_whole("layers", self.layers, 1, "the layers of the model")
        check_whole("width", self.width, 1, "the width of the hidden states")
        check_whole("heads", self.heads, 1, "the attention heads")
        check_whole("kv_heads", self.kv_heads, 1, "the heads of keys and values")
        if self.width % self.heads:
            raise _error("heads", self.heads, f"must divide width={self.width}", "")
        if self.heads % self.kv_heads:
            raise _error("kv_heads", self.kv_heads, f"must divide heads={self.heads}", "")
        check_whole("context", self.context, 16, "the tokens of a row")
        check_seed(self.seed)
        check_positive("mlp_ratio", self.mlp_ratio, "the feed-forward layers' width over width")
        check_whole("position_factor", self.position_factor, 1, "the positions over context")
        spread = "the standard deviation of initial weights"
        if self.width // self.heads % 2:
            size = f"width={self.width} gives heads of {self.width // self.heads}"
            raise _error("heads", self.heads, "must give heads of an even size", size)
        check_positive("embedding_std", self.embedding_std, spread)
        check_positive("head_std", self.head_std, spread)


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
    max_gradient_bias: float = 0.05

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        check_tau(self.tau)
        check_seed(self.seed)
        refused = "soft targets whose gradient misses the exact one by more are refused"
        check_at_least("max_gradient_bias", self.max_gradient_bias, 0, refused)


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
    sample_seed: int = 0

    def __post_init__(self) -> None:
        check_one_of("split", self.split, SPLITS)
        check_sample_seed(self.sample_seed)
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
    sample_seed: int = 0

    def __post_init__(self) -> None:
        check_prompts(self.prompts, self.max_new_tokens)
        check_one_of("dtype", self.dtype, DTYPES)
        check_seed(self.seed)
        check_one_of("split", self.split, SPLITS)
        check_sample_seed(self.sample_seed)


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
    sample_seed: int = 0

    def __post_init__(self) -> None:
        check_prompts(self.prompts, self.max_new_tokens)
        check_whole("rounds", self.rounds, 3, "timed rounds, of which the median counts")
        check_whole("threads", self.threads, 1, "the CPU threads of the stage")
        check_one_of("dtype", self.dtype, DTYPES)
        check_seed(self.seed)
        check_whole("warmup", self.warmup, 0, "rounds that are not timed")
        check_sample_seed(self.sample_seed)


@dataclass(frozen=True)
class ReadArguments:
    """read: read the files of a user's folder."""

    readers: Mapping[str, str]
    timeout: float

    def __post_init__(self) -> None:
        check_positive("timeout", self.timeout, "the seconds that a document may take")
        for suffix, path in self.readers.items():
            check_function(f"data.read.readers.{suffix}", path)


STAGE_ARGUMENTS: dict[str, Callable[..., object] | None] = {
    "fetch": GivenModelArguments,
    "local_model": GivenModelArguments,
    # what else these take is settings, which are checked as such
    "read": ReadArguments,
    "clean": None,
    "deduplicate": None,
    "decontaminate": None,
    "draw_passages": None,
    "labels": None,
    "draw_pairs": None,
    "judged_pairs": None,
    "score": None,
    "select": None,
    "ask": None,
    "screen": None,
    "annotated": None,
    "adopt": None,
    "held_out_questions": FilesArguments,
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
        arguments: All its arguments, none of them missing.

    Raises:
        ValueError: One is out of its range.
    """
    dataclass_of_stage = STAGE_ARGUMENTS.get(stage)
    if dataclass_of_stage is None:
        return
    known = inspect.signature(dataclass_of_stage).parameters
    dataclass_of_stage(**{key: value for key, value in arguments.items() if key in known})


# ------------------------------------------------------------------ what conf/ may instantiate

# Hydra itself would call anything that a `_target_` names.
OURS = "soaes."


def check_targets(node: Any) -> None:
    """Check every `_target_` in a node, however deep."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            check_target(node["_target_"])
        for value in node.values():
            check_targets(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            check_targets(value)


def check_target(target: str) -> str:
    """Return a `_target_` that may be called.

    Raises:
        ValueError: It is not ours.
    """
    if not str(target).startswith(OURS):
        raise ValueError(f"_target_: {target} is not ours to call; it must start with {OURS}")
    return target
