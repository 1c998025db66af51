"""What every backend is asked for and what it gives: a decoding method and its own baseline, over the same folders.

A backend is a context manager `open(decode, folders, *, eos, sampling, dtype, device, threads)` that yields a Pair. Knows folders and
settings: not the clock, not questions."""

import inspect
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from soaes.decode.autoregressive import Autoregressive
from soaes.decode.base import Generation
from soaes.decode.prompt_lookup import PromptLookup
from soaes.decode.speculative import Speculative
from soaes.decode.verify import rejection
from soaes.pipeline.validation import check


class DecoderPair(NamedTuple):
    """Two things with `generate(prompt_ids, max_new_tokens, generator) -> Generation`; under autoregression they are one."""

    method: Any
    baseline: Any
    n: int  # drafted tokens of a block at most
    positions: int  # tokens that a prompt and its answer may have together
    timeable: bool = False  # its steps, drafts and verifications can be timed one by one


@dataclass
class ExternalGeneration(Generation):
    """A generation as another library tells of it: what it keeps to itself is missing, not zero.

    The paper's per-position rate counts tests also after a block's first rejection. Who does not tell these leaves both lists empty."""

    drafted: int = 0
    overlap: float | None = None
    prefixes_per_position: list[int] = field(
        default_factory=list
    )  # blocks in which drafted token i and all before it were accepted
    seconds: float | None = None  # where the library runs in a process of its own: taken there


class SpeculationSpec(NamedTuple):
    """A decoder in words that another library understands. kind: none, model or lookup."""

    kind: str
    n: int = 0
    max_ngram: int = 0


def speculation_spec(decode: partial, backend: str) -> SpeculationSpec:
    """ValueError for a decoder, or a setting of one, that there is here alone."""
    kinds = {Autoregressive: "none", Speculative: "model", PromptLookup: "lookup"}
    settings = dict(decode.keywords)
    rule = settings.pop("rule", rejection)
    name = getattr(rule, "func", rule).__name__
    if name != rejection.__name__:
        raise ValueError(
            f"rule={name}: {backend} verifies by rejection; leave the rule as it is, or set backend=native"
        )
    known = {key: settings.pop(key) for key in ("n", "max_ngram") if key in settings}
    check(**known)
    if decode.func not in kinds or any(settings.values()):
        words = ", ".join(f"{key}={value}" for key, value in settings.items())
        raise ValueError(
            f"{decode.func.__name__}({words}): {backend} has no such decoder; set backend=native"
        )
    return SpeculationSpec(kinds[decode.func], **known)


def model_folders(target: Path, draft: Path | None, decode: partial) -> dict[str, Path]:
    """The models that a decoder takes, by its own argument names. ValueError for two that cannot work together."""
    if "draft" not in inspect.signature(decode.func).parameters:
        return {"target": target}
    if draft is None:
        raise ValueError(
            "this decoder needs a draft model and draft is null; name one, or set decode=prompt_lookup"
        )
    if draft.resolve() == target.resolve():
        raise ValueError(
            f"draft and target are both {target}: nothing is gained; name a smaller model as draft"
        )
    first, second = (
        Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
        for folder in (target, draft)
    )
    if first != second:
        raise ValueError(
            f"draft {draft} and target {target} have different tokenizers; train both with one"
        )
    return {"target": target, "draft": draft}
