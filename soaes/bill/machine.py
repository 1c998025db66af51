"""The machine that a bill is for: what the settings say of it, else what is found here."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from soaes.bill.formulas import FLOAT32
from soaes.pipeline import hardware
from soaes.pipeline.hardware import CARDS, FLOAT32_SHARE, Card, Hardware
from soaes.pipeline.runtime import Runtime
from soaes.pipeline.store import Store

MB = 1e6
GB = 1e9
TERA = 1e12


@dataclass(frozen=True)
class Machine:
    """A machine. Bytes, and operations or bytes a second; None where nothing tells it."""

    name: str
    """Of a device, in words."""

    is_cpu: bool
    device_memory: float | None
    host_memory: float | None
    rate: float | None
    """Products in bfloat16 that one device takes a second, at its peak."""

    rate_float32: float | None
    """Likewise in float32, where a GPU's tensor cores have no part; of a CPU what was measured."""

    bandwidth: float | None
    """Bytes of its memory that one device reads a second."""

    utilisation: float
    disk: float

    def rate_in(self, bytes_per_value: int) -> float | None:
        """Return the products that one device takes a second, at its peak.

        Args:
            bytes_per_value: Of the arithmetic: 4 in float32, 2 in bfloat16 and float16.
        """
        return self.rate_float32 if bytes_per_value == FLOAT32 else self.rate


def machine_of(runtime: Runtime, store: Store, with_rate: bool = True) -> Machine:
    """Return the machine of a runtime.

    Args:
        runtime: Its settings; what they leave null is looked for here.
        store: The store, whose disk is looked at.
        with_rate: Whether to time a product, where a processor's rate is not set.
    """
    settings = runtime.hardware
    folder = store.root if store.root.exists() else "."
    disk = shutil.disk_usage(folder).free
    host = _bytes(settings.host_memory_gb, hardware.whole_memory())
    is_cpu = runtime.execution.device == "cpu"
    card = None
    if is_cpu:
        threads = runtime.execution.threads
        name = f"a CPU with {threads} thread{'s' if threads > 1 else ''} a stage"
        memory = _bytes(settings.host_memory_gb, hardware.free_memory())
        rate, rate_float32 = _cpu_rates(settings, threads if with_rate else None)
    else:
        name, memory, card = _card(settings.card)
        rate, rate_float32 = _gpu_rates(settings, card)
    bandwidth = None if card is None else card.gb_per_s * GB
    if settings.memory_gb_per_s is not None:
        bandwidth = settings.memory_gb_per_s * GB
    return Machine(
        name=name,
        is_cpu=is_cpu,
        device_memory=_bytes(settings.device_memory_gb, memory),
        host_memory=host,
        rate=rate,
        rate_float32=rate_float32,
        bandwidth=bandwidth,
        utilisation=settings.utilisation,
        disk=disk if settings.disk_gb is None else settings.disk_gb * GB,
    )


def _gpu_rates(settings: Hardware, card: Card | None) -> tuple[float | None, float | None]:
    """Return the products a second in bfloat16 and in float32: those set, else those of the card.

    Where only the rate in bfloat16 is known, that in float32 is FLOAT32_SHARE of it.
    """
    tflops, float32 = settings.peak_tflops, settings.peak_tflops_float32
    if tflops is None and card is not None:
        tflops = card.tflops
    if float32 is None and card is not None:
        float32 = card.tflops_float32
    if float32 is None and tflops is not None:
        float32 = FLOAT32_SHARE * tflops
    return _rate(tflops), _rate(float32)


def _cpu_rates(settings: Hardware, threads: int | None) -> tuple[float | None, float | None]:
    """Return the products a second in bfloat16 and in float32 of a processor.

    What is set of one holds for both, else what is measured in float32.

    Args:
        settings: What is set.
        threads: That a measurement may use; None: nothing is measured.
    """
    tflops, float32 = settings.peak_tflops, settings.peak_tflops_float32
    if tflops is None and float32 is None:
        measured = None if threads is None else hardware.product_rate(threads)
        return measured, measured
    if tflops is None:
        tflops = float32
    return _rate(tflops), _rate(tflops if float32 is None else float32)


def _rate(tflops: float | None) -> float | None:
    return None if tflops is None else tflops * TERA


def _card(name: str | None) -> tuple[str, float | None, Card | None]:
    """Return the name, bytes and data sheet of the GPU that is named, else of the one here."""
    if name is not None:
        return name, CARDS[name].memory_gb * GB, CARDS[name]
    here = hardware.card_here()
    if here is None:
        return "a GPU that is not here", None, None
    return here[0], here[1], hardware.card_named(here[0])


def _bytes(gigabytes: float | None, found: float | None) -> float | None:
    return found if gigabytes is None else gigabytes * GB
