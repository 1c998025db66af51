"""Processes that a stage starts end with it. Knows the kernel; nothing of the project."""

from __future__ import annotations

import ctypes
import signal
import sys


def die_with_parent() -> None:
    """Let the kernel end this process with the one that starts it (PR_SET_PDEATHSIG, Linux alone).

    For `subprocess.Popen(preexec_fn=...)`. The starting thread must not end before the process.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
