"""The machine that a bill is for: what the settings say of it, else what is found here."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from soaes.pipeline import hardware
from soaes.pipeline.hardware import CARDS, Card
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
    """Products that one device takes a second, at its peak."""

    bandwidth: float | None
    """Bytes of its memory that one device reads a second."""

    utilisation: float
    disk: float


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
    name, memory, rate, bandwidth = "", None, None, None
    if is_cpu:
        threads = runtime.execution.threads
        name = f"a CPU with {threads} thread{'s' if threads > 1 else ''} a stage"
        memory = _bytes(settings.host_memory_gb, hardware.free_memory())
        if with_rate and settings.peak_tflops is None:
            rate = hardware.product_rate(threads)
    else:
        name, memory, card = _card(settings.card)
        if card is not None:
            rate, bandwidth = card.tflops * TERA, card.gb_per_s * GB
    if settings.peak_tflops is not None:
        rate = settings.peak_tflops * TERA
    if settings.memory_gb_per_s is not None:
        bandwidth = settings.memory_gb_per_s * GB
    return Machine(
        name=name,
        is_cpu=is_cpu,
        device_memory=_bytes(settings.device_memory_gb, memory),
        host_memory=host,
        rate=rate,
        bandwidth=bandwidth,
        utilisation=settings.utilisation,
        disk=disk if settings.disk_gb is None else settings.disk_gb * GB,
    )


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
