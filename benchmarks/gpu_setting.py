"""What the parts of the GPU report share: device, rates, models of Qwen2.5's shapes, packed rows.

# B rows of T tokens, V vocabulary, D width
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from benchmarks.rounds import row
from soaes.bill.shape import SHAPES, ModelShape, from_config
from soaes.decode.clock import timed
from soaes.pipeline.hardware import card_named
from soaes.pipeline.store import read_json

Row = dict[str, Any]  # made by benchmarks.rounds.row
Action = Callable[[], Any]

VOCABULARY = 152_064  # of Qwen2.5-7B and 72B; every model here has as many rows
POSITIONS = 32_768
ROPE = {"rope_type": "default", "rope_theta": 1e6}
TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 600,
}
PRODUCT_SIDE = 8192  # rows and columns of the products that the device's rate is taken from
COPIED_BYTES = 1 << 31
GIGA, TERA = 1e9, 1e12


@dataclass(frozen=True)
class Setting:
    """Where the report runs.

    Attributes:
        dry: whether it runs over tiny shapes on a CPU, where rates mean nothing.
        card: name of the GPU; of a dry run nothing.
        memory: bytes of the GPU.
    """

    dry: bool
    card: str = ""
    memory: float = 0.0

    @property
    def device(self) -> str:
        """The device by torch's name."""
        return "cpu" if self.dry else "cuda"

    @property
    def dtype(self) -> torch.dtype:
        """What models decode in; few processors are quick in bfloat16."""
        return torch.float32 if self.dry else torch.bfloat16

    def goal(self, value: float) -> float | None:
        """Return what is asked of a rate; of a dry run nothing is."""
        return None if self.dry else value

    def peak_flops(self) -> float:
        """Return the products in bfloat16 that the card's data sheet promises, else those here."""
        sheet = card_named(self.card)
        return sheet.tflops * TERA if sheet else max(self.product_rates())

    def product_rates(self) -> list[float]:
        """Time products of large matrices in bfloat16: operations a second."""
        side = 256 if self.dry else PRODUCT_SIDE
        left = torch.randn(side, side, device=self.device, dtype=torch.bfloat16)
        right = torch.randn(side, side, device=self.device, dtype=torch.bfloat16)
        return [2 * side**3 / seconds for seconds in self.repeat(lambda: left @ right, 10)]

    def copy_rates(self) -> list[float]:
        """Time copies of device memory: bytes a second, read and written."""
        size = 1 << 20 if self.dry else COPIED_BYTES
        source = torch.zeros(size, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        seconds = self.repeat(lambda: target.copy_(source), 10)
        return [2 * size / each for each in seconds]

    def repeat(self, action: Action, times: int = 5, warmup: int = 2) -> list[float]:
        """Return the seconds of an action, time for time."""
        if self.dry:
            times, warmup = 1, 0
        for _ in range(warmup):
            action()
        seconds = []
        for _ in range(times):
            elapsed, _ = timed(self.device, action)
            seconds.append(elapsed)
        return seconds

    def free_memory(self) -> None:
        """Free what earlier measurements held, and forget their peak."""
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def config(self, name: str, **changes: Any) -> dict[str, Any]:
        """Return the config of a Qwen2.5, in a dry run of a tiny model.

        Args:
            name: Its size, as in 1.5B.
            changes: Settings that differ.
        """
        config = read_json(SHAPES / f"Qwen2.5-{name}.json")
        config |= {
            "vocab_size": VOCABULARY,
            "max_position_embeddings": POSITIONS,
            "rope_parameters": ROPE,
        }
        if self.dry:
            config |= TINY
        return config | changes

    def shape(self, name: str, **changes: Any) -> ModelShape:
        """Return the shape of the model that `model` makes of the same arguments."""
        shape = from_config(self.config(name, **changes))
        assert shape is not None, "Qwen2 is a family that the bill knows"
        return shape

    def model(self, name: str, dtype: torch.dtype, **changes: Any) -> Any:
        """Return a model of random weights on the device; arguments as of `config`."""
        torch.manual_seed(0)
        config = Qwen2Config(**self.config(name, **changes))
        with torch.device(self.device):
            return AutoModelForCausalLM.from_config(config, dtype=dtype)

    def packed_batch(self, lengths: list[int], rows: int = 1) -> dict[str, Any]:
        """Return packed rows of random documents, all tokens of which bear loss.

        Args:
            lengths: Tokens of a row's documents.
            rows: B.
        """
        torch.manual_seed(1)
        vocabulary = self.config("7B")["vocab_size"]
        ids_BT = torch.randint(vocabulary, (rows, sum(lengths)), device=self.device)
        documents = [torch.arange(length, device=self.device) for length in lengths]
        return {
            "ids_BT": ids_BT,
            "labels_BT": ids_BT,
            "positions_BT": torch.cat(documents).repeat(rows, 1),
            "step_tokens": ids_BT.numel() - rows * len(lengths),
        }


def machine(setting: Setting) -> Iterator[Row]:
    """Time what all shares of the report are shares of, beside the card's data sheet."""
    sheet = None if setting.dry else card_named(setting.card)
    side = 256 if setting.dry else PRODUCT_SIDE
    products = [rate / TERA for rate in setting.product_rates()]
    limit = sheet.tflops if sheet else None
    yield row(f"products of {side:,}, bfloat16", "TFLOP/s", products, limit=limit)
    copies = [rate / TERA for rate in setting.copy_rates()]
    limit = sheet.gb_per_s / 1000 if sheet else None
    yield row("copies of device memory, read and written", "TB/s", copies, limit=limit)
