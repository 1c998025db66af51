"""Whether this machine multiplies bfloat16 fast, known without torch.

A processor without bfloat16 instructions computes bfloat16 products in software. On an AMD EPYC
with AVX2 alone `soaes.report.time_profile.matmul_rate` finds .9 GFLOP/s where float32 has 68, and
the first 31 steps of `goal=target.base scale=tiny` take 143 s instead of 16.
"""

from __future__ import annotations

import os
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
FLAGS = ("avx512_bf16", "amx_bf16")  # of /proc/cpuinfo

# Environment variables that keep oneDNN, which computes torch's products, from newer instructions,
# and parts of the values that leave bfloat16 in.
LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
WITH_BFLOAT16 = ("BF16", "FP16", "AMX", "AVX10", "DEFAULT", "ALL")


def slow_bfloat16() -> str:
    """Return why bfloat16 is slow on this processor; empty where it is fast or nothing is known.

    Only Linux says which instructions a processor has, and only those of x86 are known here.
    """
    for name in LIMITS:
        value = os.environ.get(name, "").upper()
        if value and not any(word in value for word in WITH_BFLOAT16):
            return f"{name}={value} keeps oneDNN from bfloat16 instructions"
    return "this processor has no bfloat16 instructions" if fast_bfloat16() is False else ""


def fast_bfloat16() -> bool | None:
    """Tell whether this processor has instructions for bfloat16; None where nothing is known."""
    if not CPUINFO.exists():
        return None
    for line in CPUINFO.read_text(encoding="utf-8").splitlines():
        if line.startswith("flags"):
            return any(flag in line.split() for flag in FLAGS)
    return None
