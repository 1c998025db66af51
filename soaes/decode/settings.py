"""What a configuration says of decoding: which decoder, with which options, under which sampling.

Torch-free: a job's settings are checked when it is composed, and `build` imports the decoder's
module only in the stage that decodes. A new decoder is a settings class here, its module, and a
file in conf/decode.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from soaes.pipeline.validation import (
    check_at_least,
    check_flag,
    check_in_range,
    check_one_of,
    check_whole,
)

if TYPE_CHECKING:
    from soaes.decode.base import EngineDecoder
    from soaes.decode.engine import Engine

MAX_BATCH = 8
RULES = ("rejection", "block", "token_match", "paper_literal")  # soaes/decode/verify.py has them


@dataclass(frozen=True)
class SamplingSettings:
    """How logits become a distribution; the same for target and draft.

    Raises:
        ValueError: A setting is out of its range.
    """

    temperature: float  # at least 0; 0 is greedy decoding
    top_p: float  # in (0, 1]: the mass of the nucleus that is kept; 1 keeps everything

    def __post_init__(self) -> None:
        check_at_least("temperature", self.temperature, 0, "0 is greedy decoding")
        check_in_range("top_p", self.top_p, "(0, 1]", "1 keeps the whole distribution")

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is taken instead of a sample."""
        return self.temperature == 0


class DecoderSettings:
    """What every decoder's settings declare. Subclasses are frozen dataclasses."""

    label: ClassVar[str]  # the decoder's name in tables
    decoder: ClassVar[str]  # dotted path of the class that `build` constructs
    uses_draft: ClassVar[bool] = False  # whether it needs a draft model beside the target

    n: int  # drafted tokens in a block at most
    rule: str | None  # name of the acceptance rule; None for a decoder that verifies nothing
    batch: int = 1  # texts that are decoded together, at most MAX_BATCH

    def build(
        self, engines: Mapping[str, Engine], sampling: SamplingSettings, eos: int
    ) -> EngineDecoder:
        """Construct the decoder.

        Args:
            engines: `target`, and `draft` where `uses_draft`.
            sampling: Temperature and top-p of all models.
            eos: Id of the token that ends a text.
        """
        module, _, name = self.decoder.rpartition(".")
        decoder_class = getattr(importlib.import_module(module), name)
        decoder: EngineDecoder = decoder_class.from_settings(self, engines, sampling, eos)
        return decoder


@dataclass(frozen=True)
class AutoregressiveSettings(DecoderSettings):
    """One token a step from the target alone.

    Raises:
        ValueError: `batch` is out of its range.
    """

    label = "Autoregression"
    decoder = "soaes.decode.autoregressive.Autoregressive"

    n = 0
    rule = None
    batch: int = 1  # texts that are decoded together

    def __post_init__(self) -> None:
        _check_batch(self.batch)


@dataclass(frozen=True)
class SpeculativeSettings(DecoderSettings):
    """A draft model proposes, the target verifies.

    Raises:
        ValueError: A setting is out of its range.
    """

    label = "Draft model"
    decoder = "soaes.decode.speculative.Speculative"
    uses_draft = True

    n: int  # drafted tokens in a block (at most, if adaptive), at least 1
    rule: str = "rejection"  # one of RULES
    adaptive: bool = False  # choose 0 .. n anew for every block, by costs timed at the start
    batch: int = 1  # texts that are decoded together

    def __post_init__(self) -> None:
        _check_drafting(self.n, self.rule, self.adaptive, self.batch)


@dataclass(frozen=True)
class PromptLookupSettings(DecoderSettings):
    """Drafts are copied from what followed the text's end earlier in the text.

    Raises:
        ValueError: A setting is out of its range.
    """

    label = "Prompt lookup"
    decoder = "soaes.decode.prompt_lookup.PromptLookup"

    n: int  # drafted tokens in a block at most, at least 1
    max_ngram: int  # tokens of the longest n-gram that is looked for, at least 1
    rule: str = "rejection"  # one of RULES
    adaptive: bool = False  # choose 0 .. n anew for every block, by costs timed at the start
    batch: int = 1  # texts that are decoded together

    def __post_init__(self) -> None:
        _check_drafting(self.n, self.rule, self.adaptive, self.batch)
        check_whole("max_ngram", self.max_ngram, 1, "the longest n-gram that is looked for")


@dataclass(frozen=True)
class SpeculationSpec:
    """A decoder in terms that other libraries share."""

    kind: str  # none, model or lookup
    n: int = 0  # drafted tokens in a block
    max_ngram: int = 0  # of lookup


def speculation_spec(decode: DecoderSettings, backend: str) -> SpeculationSpec:
    """Translate our decoder settings for another library.

    Args:
        decode: The settings.
        backend: The library's name, for messages.

    Raises:
        ValueError: The decoder, or one of its settings, exists in backend=native alone.
    """
    if decode.rule not in (None, "rejection"):
        raise ValueError(
            f"rule={decode.rule}: {backend} verifies by rejection; set rule=rejection, "
            "or backend=native"
        )
    if getattr(decode, "adaptive", False):
        raise ValueError(
            f"adaptive=true: {backend} drafts n tokens in every block; set adaptive=false, "
            "or backend=native"
        )
    if decode.batch > 1:
        raise ValueError(
            f"batch={decode.batch}: {backend} is timed one text at a time; set batch=1, or "
            "backend=native"
        )
    if isinstance(decode, AutoregressiveSettings):
        return SpeculationSpec("none")
    if isinstance(decode, SpeculativeSettings):
        return SpeculationSpec("model", decode.n)
    if isinstance(decode, PromptLookupSettings):
        return SpeculationSpec("lookup", decode.n, decode.max_ngram)
    raise ValueError(f"decode={decode}: {backend} has no such decoder; set backend=native")


def _check_batch(batch: int) -> None:
    check_whole("batch", batch, 1, "texts that are decoded together")
    check_in_range("batch", batch, f"[1, {MAX_BATCH}]", "texts that are decoded together")


def _check_drafting(n: int, rule: str, adaptive: bool, batch: int) -> None:
    check_whole("n", n, 1, "drafted tokens in a block; for none set decode=autoregressive")
    check_one_of("rule", rule, RULES, "the acceptance rule, see soaes/decode/verify.py")
    check_flag("adaptive", adaptive, "whether n is chosen anew for every block")
    _check_batch(batch)
    if adaptive and batch > 1:
        raise ValueError(
            f"batch={batch}: adaptive=true chooses n by the costs of one text; set adaptive=false, "
            "or batch=1"
        )
