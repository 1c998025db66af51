"""Our own decoders over our own engine: every rule, every draft, and each part to be timed by itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from transformers import PreTrainedModel

from soaes.decode.autoregressive import Autoregressive
from soaes.decode.backends.base import DecoderPair
from soaes.decode.engine import Engine
from soaes.model import checkpoint
from soaes.pipeline.validation import check

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@contextmanager
def open_native(
    decode: partial,
    folders: dict[str, Path],
    *,
    eos: int,
    sampling: dict[str, float],
    dtype: str,
    device: str,
    threads: int,
) -> Iterator[DecoderPair]:
    """decode: a decoder's class with its own settings bound; folders: the models it takes, by its argument names."""
    torch.set_num_threads(threads)
    engines = {name: Engine(load(folder, dtype, device)) for name, folder in folders.items()}
    baseline = Autoregressive(engines["target"], eos=eos, **sampling)
    method = baseline if decode.func is Autoregressive else decode(**engines, eos=eos, **sampling)
    yield DecoderPair(
        method,
        baseline,
        method.n,
        min(engine.positions for engine in method.engines),
        timeable=True,
    )


def load(folder: Path, dtype: str, device: str) -> PreTrainedModel:
    """A folder's model as it is measured. ValueError for a dtype that there is not."""
    check(dtype=dtype)
    return checkpoint.load(folder, DTYPES[dtype]).to(device).eval()
