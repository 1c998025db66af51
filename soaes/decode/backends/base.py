"""What every backend takes and gives: settings and model folders; a decoder and its baseline.

A backend is a context manager `open_NAME(folders, settings)` that yields a `DecoderPair`. Knows
folders and settings: not the clock, not prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from transformers import AutoConfig

from soaes.data.chat import tokenizer_digest
from soaes.decode.base import Decoder, Generation
from soaes.decode.settings import DecoderSettings, SamplingSettings
from soaes.pipeline.validation import DTYPES, check_one_of


@dataclass(frozen=True)
class BackendSettings:
    """What is decoded with, whatever the backend.

    Raises:
        ValueError: `dtype` is not known.
    """

    decode: DecoderSettings
    sampling: SamplingSettings
    eos: int  # id of the token that ends a text
    dtype: str  # one of DTYPES
    device: str = "cpu"
    threads: int = 1  # CPU threads of a model
    longest: int | None = None  # tokens of a prompt, its answer and a block at most; None: unknown

    def __post_init__(self) -> None:
        check_one_of("dtype", self.dtype, DTYPES)


@dataclass(frozen=True)
class DecoderPair:
    """A decoder and the autoregression of the same backend, which may be one and the same."""

    method: Decoder
    baseline: Decoder
    n: int  # drafted tokens in a block at most
    positions: int  # tokens that a prompt and its answer may have together


Backend = Callable[[dict[str, Path], BackendSettings], AbstractContextManager[DecoderPair]]


@dataclass
class ExternalGeneration(Generation):
    """A generation by another library. What the library does not report is missing, not zero.

    The paper's per-position rate counts tests also after a block's first rejection; where these
    are not reported, both lists by position are empty.
    """

    drafted: int = 0
    overlap: float | None = None
    # blocks in which drafted token i and all before it were accepted
    prefixes_per_position: list[int] = field(default_factory=list)
    # wall time taken by the library's own process, where it runs in one
    seconds: float | None = None


def positions_of(folders: Mapping[str, Path]) -> int:
    """Return the tokens that all models read at once, by their folders alone.

    Args:
        folders: Model folders, see `model_folders`.
    """
    configs = [AutoConfig.from_pretrained(folder) for folder in folders.values()]
    return min(config.get_text_config().max_position_embeddings for config in configs)


def model_folders(target: Path, draft: Path | None, decode: DecoderSettings) -> dict[str, Path]:
    """Name the model folders that a decoder reads.

    Args:
        target: Folder of the target.
        draft: Folder of the draft; ignored by a decoder that needs none.
        decode: The decoder's settings.

    Returns:
        `target`, and `draft` where the decoder uses one.

    Raises:
        ValueError: The draft is missing, is the target, or has another tokenizer.
    """
    if not decode.uses_draft:
        return {"target": target}
    if draft is None:
        raise ValueError(
            "this decoder needs a draft model and draft is null; "
            "name one, or set decode=prompt_lookup"
        )
    if draft.resolve() == target.resolve():
        raise ValueError(
            f"draft and target are both {target}: nothing is gained; name a smaller model as draft"
        )
    if tokenizer_digest(target) != tokenizer_digest(draft):
        raise ValueError(
            f"draft {draft} and target {target} have different tokenizers; train both with one"
        )
    return {"target": target, "draft": draft}
