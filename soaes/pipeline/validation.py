"""Checks of what a user may set: run when a job is composed, so that a slip costs nothing.

Settings (frozen dataclasses in modules called `settings`) call the helpers below in their
`__post_init__`. All messages have one form: `name=value: what it must be (what it is; way out)`.
Imports nothing of ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _error(name: str, value: object, rule: str, what: str) -> ValueError:
    explanation = f" ({what})" if what else ""
    return ValueError(f"{name}={_word(value)}: {rule}{explanation}")


# ------------------------------------------- settings not yet moved to dataclasses, by leaf name


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: value >= least and value == int(value)


def _at_least(least: int, what: str) -> tuple[Callable[[Any], bool], str]:
    return _whole(least), f"{what}, a whole number from {least} on"


NUMBERS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "alpha": (
        lambda value: 0 <= value <= 1,
        "a KD weight lies in [0, 1]; 0 is plain SFT, 1 distillation alone",
    ),
    "tau": (
        lambda value: value > 0,
        "a temperature of distillation is positive; the paper sweeps 1, 2, 3, 5",
    ),
    "k": _at_least(1, "the logits kept of a token"),
    "draws": _at_least(1, "the ids drawn for a token"),
    "n": (_whole(1), "a block drafts at least 1 token; for none set decode=autoregressive"),
    "max_ngram": _at_least(1, "the longest n-gram that prompt lookup matches"),
    "top_p": (lambda value: 0 < value <= 1, "top-p lies in (0, 1]; 1 keeps the whole distribution"),
    "temperature": (
        lambda value: value >= 0,
        "a temperature of sampling is at least 0; 0 is greedy",
    ),
    "replay": (
        lambda value: 0 <= value < 1,
        "general text's share of the tokens lies in [0, 1); 0 is CPT on the domain alone, as the paper's",
    ),
    "unseen_enterprises": _at_least(
        0, "what is set apart: enterprises of the world, questions of an evaluation"
    ),
    "context": _at_least(16, "the tokens of a row"),
    "lr": (lambda value: value > 0, "a learning rate is positive"),
    "global_batch_size": _at_least(1, "the rows of a step"),
    "epochs": (lambda value: value > 0, "training takes more than 0 epochs"),
    "max_tokens": _at_least(1, "a token budget (null for none)"),
    "seed": _at_least(0, "a seed"),
    "shots": _at_least(0, "the examples that an exam shows"),
    "limit": _at_least(1, "the questions to answer (null for all)"),
    "qa": _at_least(1, "the most new tokens of an answer"),
    "report": _at_least(1, "the most new tokens of a report"),
    "max_new_tokens": _at_least(1, "the most new tokens"),
    "prompts": _at_least(1, "the prompts of a speed row"),
    "rounds": (_whole(3), "a speed is the median of at least 3 rounds"),
    "parallel_stages": _at_least(1, "the stages side by side"),
    "devices": _at_least(1, "the devices of a stage"),
    "threads": _at_least(1, "the threads of a stage"),
    "checkpoint_every": (
        lambda value: value >= 0,
        "seconds of training between two checkpoints; 0 for none",
    ),
    "vocab": _at_least(
        1, "the ids that teacher and student have in common (null for the teacher's)"
    ),
    "micro_batch_size": _at_least(1, "the rows at once on a device"),
}
WORDS: dict[str, tuple[str, ...]] = {
    "overflow": ("auto", "split", "drop", "error"),
    "dtype": ("float32", "bfloat16", "float16"),
    "divergence": ("forward", "reverse", "total_variation"),
    "split": ("train", "dev", "test"),
    "scoring": ("letter", "text"),
}
FLAGS = ("tau_squared", "gradient_checkpointing", "compile", "cpu_offload")
NEEDED = (
    "alpha",
    "tau",
    "divergence",
    "dtype",
    "k",
    "draws",
    "taus",
)  # null is no value of these; of all others it is


def check(**values: Any) -> None:
    """ValueError with the value, the limit and the way out for the first value out of its range. None is in range, but for NEEDED."""
    for name, value in values.items():
        if (value is None and name not in NEEDED) or isinstance(value, dict):
            continue
        if name in FLAGS and not isinstance(
            value, bool
        ):  # of "no" Hydra makes a word, and a word is true
            raise ValueError(f"{name}={value}: true or false")
        if name in WORDS and value not in WORDS[name]:
            raise ValueError(f"{name}={_word(value)}: one of {', '.join(WORDS[name])}")
        if name in NUMBERS and not _in_range(name, value):
            raise ValueError(f"{name}={_word(value)}: {NUMBERS[name][1]}")
        if name == "taus" and not (
            isinstance(value, Sequence) and value and all(_in_range("tau", tau) for tau in value)
        ):
            raise ValueError(
                f"taus={_word(value)}: a list of the temperatures that a signal is kept at, one or more and positive, "
                "as in 'soft_targets.taus=[1,2,3,5]', the paper's sweep"
            )


def check_supports(settings: Mapping[str, Any], tau: float, divergence: str) -> None:
    """ValueError, with the way out, if a signal format of these settings cannot give this divergence at tau.

    What is drawn gives one divergence alone, and what is kept at some temperatures (`taus`) serves no other."""
    check(tau=tau, divergence=divergence)
    if "draws" in settings and divergence != "forward":
        raise ValueError(
            f"divergence={divergence}: drawn ids give the forward KL alone; set soft_targets=hidden, which serves every divergence"
        )
    if tau not in settings.get("taus", [tau]):
        known = ", ".join(f"{each:g}" for each in settings["taus"])
        raise ValueError(
            f"tau={tau:g}: the signal was kept at {known}; add it to soft_targets.taus, or set soft_targets=hidden, which serves every tau"
        )


def check_vllm_supports(
    name: str, settings: Mapping[str, Any], vocabulary: int | None = None
) -> None:
    """ValueError, with the way out, if vLLM cannot tell what a signal format of these settings keeps of a teacher's vocabulary, where it is known."""
    way_out = "or teacher_logits=transformers, which serves every format"
    if "k" not in settings:
        raise ValueError(
            f"soft_targets={name}: vLLM tells the likeliest ids alone; set soft_targets=topk 'soft_targets.taus=[1]', {way_out}"
        )
    if list(settings["taus"]) != [1]:
        told = ", ".join(f"{tau:g}" for tau in settings["taus"])
        raise ValueError(
            f"soft_targets.taus=[{told}]: vLLM normalises at temperature 1 alone; set 'soft_targets.taus=[1]', {way_out}"
        )
    if vocabulary and settings["vocab"] not in (None, vocabulary):
        raise ValueError(
            f"soft_targets.vocab={settings['vocab']}: vLLM normalises over all {vocabulary:,} ids of the teacher; "
            f"set soft_targets.vocab=null, {way_out}"
        )


def _in_range(name: str, value: Any) -> bool:
    number = (
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    )
    return number and NUMBERS[name][0](value)


def _word(value: Any) -> Any:
    """As it is written on the command line."""
    return "null" if value is None else value


OURS = (
    "soaes.",
    "pytorch_lightning.strategies.",
)  # what a configuration may call: Hydra itself would call anything


def check_target(target: str) -> str:
    """A `_target_` that may be called; ValueError for any other."""
    if not str(target).startswith(OURS):
        raise ValueError(
            f"_target_: {target} is not ours to call; it must start with {' or '.join(OURS)}"
        )
    return target
