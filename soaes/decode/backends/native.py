"""Our own decoders over our own engine: every rule and draft, and each part can be timed alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from soaes.decode.autoregressive import Autoregressive
from soaes.decode.backends.base import BackendSettings, DecoderPair
from soaes.decode.base import EngineDecoder
from soaes.decode.engine import Engine
from soaes.decode.settings import AutoregressiveSettings
from soaes.model import checkpoint
from soaes.model.vocabulary import pad_draft, rows_of
from soaes.pipeline.validation import DTYPES, check_one_of


@dataclass(frozen=True)
class NativePair(DecoderPair):
    """A pair whose steps, drafts and verifications can be timed one by one."""

    method: EngineDecoder
    baseline: Autoregressive


@contextmanager
def open_native(folders: dict[str, Path], settings: BackendSettings) -> Iterator[NativePair]:
    """Load the models and build the decoder and its baseline.

    Args:
        folders: Model folders, see `model_folders`.
        settings: Decoder, sampling, dtype, device.
    """
    models = load_pair(folders, settings)
    engines = {name: Engine(model) for name, model in models.items()}
    sampling = settings.sampling
    baseline = Autoregressive(engines["target"], sampling.temperature, sampling.top_p, settings.eos)
    method: EngineDecoder = baseline
    if not isinstance(settings.decode, AutoregressiveSettings):
        method = settings.decode.build(engines, sampling, settings.eos)
    positions = min(engine.positions for engine in method.engines)
    yield NativePair(method, baseline, method.n, positions)


def load_pair(folders: dict[str, Path], settings: BackendSettings) -> dict[str, PreTrainedModel]:
    """Load a target and its draft, which gets the vocabulary rows that it lacks.

    Args:
        folders: Model folders, see `model_folders`.
        settings: dtype, device.

    Raises:
        ValueError: The draft has more rows than the target.
    """
    models = {
        name: load(folder, settings.dtype, settings.device) for name, folder in folders.items()
    }
    if "draft" in models:
        pad_draft(models["draft"], folders["draft"], rows_of(models["target"]))
    return models


def load(folder: Path, dtype: str, device: str) -> PreTrainedModel:
    """Load a folder's model as it is measured.

    Args:
        folder: The model's folder.
        dtype: float32, bfloat16 or float16.
        device: cpu or cuda.

    Raises:
        ValueError: `dtype` is not known.
    """
    check_one_of("dtype", dtype, DTYPES)
    return checkpoint.load(folder, getattr(torch, dtype)).to(device).eval()
