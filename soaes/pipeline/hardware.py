"""What a machine has: its cards, memory and rate, found here or as the settings say.

A plan is often made on another machine than the one that will run it, so that every number can be
set (`runtime.hardware`). Imports no torch.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from soaes.pipeline.validation import check_in_range, check_one_of, check_positive

SMI_SECONDS = 20  # that nvidia-smi may take; it hangs where a driver does

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")  # of a container, which may have less than its machine


class Card(NamedTuple):
    """A GPU by its data sheet."""

    memory_gb: float
    tflops: float  # dense products in bfloat16, 10**12 a second
    tflops_float32: float  # likewise in float32, without tensor cores: nothing here allows TF32
    gb_per_s: float  # of its memory


# From NVIDIA's data sheets; H20 and other cards are described by the settings one by one.
CARDS = {
    "A100-40GB": Card(40, 312, 19.5, 1555),
    "A100-80GB": Card(80, 312, 19.5, 2039),
    "A100-PCIE-80GB": Card(80, 312, 19.5, 1935),
    "A800-80GB": Card(80, 312, 19.5, 2039),
    "A800-PCIE-80GB": Card(80, 312, 19.5, 1935),
    "H100-80GB": Card(80, 989, 67, 3350),
    "H100-PCIE-80GB": Card(80, 756, 51, 2000),
    "H100-NVL": Card(94, 835, 60, 3938),
    "H800-80GB": Card(80, 989, 67, 3350),
    "H200": Card(141, 989, 67, 4800),
    "H200-NVL": Card(141, 835, 60, 4800),
    "L40S": Card(48, 362, 91.6, 864),
    "RTX-3090": Card(24, 71, 35.6, 936),
    "RTX-4090": Card(24, 165, 82.6, 1008),
}

# Of a GPU of which only the rate in bfloat16 is said, the share of it in float32: the least of any
# card here, an A100's.
FLOAT32_SHARE = min(card.tflops_float32 / card.tflops for card in CARDS.values())


@dataclass(frozen=True)
class Hardware:
    """What the machine has that stages run on; null: what is found here, where they run here.

    It decides no result: `dry=true` counts with it, and a stage that does not fit is refused.
    """

    card: str | None = None
    """A GPU of `CARDS`, whose numbers hold where the next four are null."""

    device_memory_gb: float | None = None
    """Memory of one device, 10**9 bytes."""

    peak_tflops: float | None = None
    """Dense products in bfloat16 that one device takes, 10**12 operations a second."""

    peak_tflops_float32: float | None = None
    """Dense products in float32, without tensor cores, 10**12 operations a second; null: the
    card's. Of a GPU that is no card of `CARDS` it is `FLOAT32_SHARE` of `peak_tflops`, a sixteenth;
    of a CPU it is `peak_tflops`."""

    memory_gb_per_s: float | None = None
    """Rate of one device's memory, 10**9 bytes a second."""

    host_memory_gb: float | None = None
    """Memory of the machine, 10**9 bytes."""

    disk_gb: float | None = None
    """Disk that the store may fill, 10**9 bytes."""

    utilisation: float = 0.4
    """Share of the peak that training reaches."""

    def __post_init__(self) -> None:
        if self.card is not None:
            way_out = (
                "or null beside device_memory_gb, peak_tflops, peak_tflops_float32 and "
                "memory_gb_per_s"
            )
            check_one_of("hardware.card", self.card, tuple(CARDS), way_out)
        for name in (
            "device_memory_gb",
            "peak_tflops",
            "peak_tflops_float32",
            "memory_gb_per_s",
            "host_memory_gb",
            "disk_gb",
        ):
            value = getattr(self, name)
            if value is not None:
                check_positive(f"hardware.{name}", value, "null: what is found here")
        meaning = "the share of the peak that training reaches"
        check_in_range("hardware.utilisation", self.utilisation, "(0, 1]", meaning)


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi sees it."""

    name: str
    memory_mb: int
    free_mb: int


def gpus_here() -> list[Gpu]:
    """List the GPUs, as nvidia-smi names them; none where there is no nvidia-smi.

    Raises:
        OSError: nvidia-smi cannot be started.
        subprocess.SubprocessError: It fails, or hangs for SMI_SECONDS.
        ValueError: It prints something else than a line for each GPU.
    """
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return []
    fields = "--query-gpu=name,memory.total,memory.free"
    command = [smi, fields, "--format=csv,noheader,nounits"]
    printed = subprocess.run(
        command, capture_output=True, encoding="utf-8", timeout=SMI_SECONDS, check=True
    ).stdout
    gpus = []
    for line in printed.strip().splitlines():
        name, total, free = line.rsplit(",", 2)
        gpus.append(Gpu(name.strip(), int(total), int(free)))
    return gpus


def free_memory() -> int | None:
    """Return the bytes that new processes may take, of a container its own; None if not known."""
    if not MEMINFO.exists():
        return None
    free = _meminfo("MemAvailable")
    limit = _container_limit()
    if limit is None:
        return free
    used = int((CGROUP / "memory.current").read_text("utf-8"))
    statistics = dict(
        line.split() for line in (CGROUP / "memory.stat").read_text(encoding="utf-8").splitlines()
    )
    used -= int(statistics["inactive_file"])  # a cache that gives way
    return max(0, min(free, limit - used))


def whole_memory() -> int | None:
    """Return the bytes of memory that there are, of a container its own; None if not known."""
    if not MEMINFO.exists():
        return None
    whole = _meminfo("MemTotal")
    limit = _container_limit()
    return whole if limit is None else min(whole, limit)


def _container_limit() -> int | None:
    """Return the bytes of memory that the container may take; None if it has no limit."""
    path = CGROUP / "memory.max"
    if not path.exists():
        return None
    text = path.read_text("utf-8").strip()
    return None if text == "max" else int(text)


def _meminfo(name: str) -> int:
    """Return the bytes of a line of /proc/meminfo."""
    sizes = dict(line.split(":", 1) for line in MEMINFO.read_text("utf-8").splitlines())
    return int(sizes[name].split()[0]) << 10


def card_here() -> tuple[str, float] | None:
    """Return the name and the bytes of the first GPU here; None where there is none."""
    try:
        gpus = gpus_here()
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return (gpus[0].name, gpus[0].memory_mb * 2.0**20) if gpus else None


def card_named(name: str) -> Card | None:
    """Return the data sheet of a GPU as nvidia-smi names it; None of one that is not kept here.

    `NVIDIA A800-SXM4-80GB` is the card A800-80GB: every word of ours is in its name. Of several it
    is the one with the most words: `NVIDIA A100 80GB PCIe` is the card A100-PCIE-80GB.

    Args:
        name: As nvidia-smi has it.
    """
    words = set(name.upper().replace("-", " ").split())
    if "H100" in words and "NVL" not in words:  # NVIDIA H100 PCIe does not say its 80 GB
        words.add("80GB")
    found = [card for card in CARDS if words.issuperset(card.split("-"))]
    return CARDS[max(found, key=lambda card: card.count("-"))] if found else None


# A product of square matrices of so many rows is timed for the rate of a processor.
PRODUCT_ROWS = 768
PRODUCT = """
import time, numpy
a = numpy.ones(({rows}, {rows}), numpy.float32)
a @ a
times = []
for _ in range(5):
    began = time.perf_counter()
    a @ a
    times.append(time.perf_counter() - began)
print(2 * {rows} ** 3 / sorted(times)[2])
"""


@cache
def product_rate(threads: int) -> float | None:
    """Time a float32 product on this processor: operations a second; None where it fails.

    It runs in a process of its own, since numpy's threads are chosen when it is imported.

    Args:
        threads: That it may use.
    """
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **{name: str(threads) for name in names}}
    command = [sys.executable, "-c", PRODUCT.format(rows=PRODUCT_ROWS)]
    ran = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")
    return None if ran.returncode else float(ran.stdout)
