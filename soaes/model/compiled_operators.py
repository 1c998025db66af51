"""Operators that DeepSpeed compiles when it is first used, and the locks of those who compile.

torch takes a file named `lock` for the time of a build, and whoever finds one waits until it is
gone, in silence. A build that was killed leaves it for ever.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

BUILD_LIMIT = 1800.0  # seconds after which a build counts as killed; DeepSpeed's take minutes
POLL = 0.5


def wait_for_builds(folder: Path | None = None, limit: float = BUILD_LIMIT) -> None:
    """Wait while other processes compile, and say so; remove the locks of builds that were killed.

    Args:
        folder: Where torch compiles; None: where it does by default.
        limit: Seconds after which a lock counts as left by a build that was killed.
    """
    for lock in sorted((folder or _build_folder()).glob("**/lock")):
        is_said = False
        while (age := _age(lock)) is not None:
            if age > limit:
                print(f"{lock} is {age / 60:.0f} minutes old: its build was killed; removed")
                lock.unlink(missing_ok=True)
            elif not is_said and age > POLL:
                print(
                    f"waiting for {lock}, while another process compiles DeepSpeed's operators; "
                    f"it counts as killed in {(limit - age) / 60:.0f} minutes, delete it if it was",
                    flush=True,
                )
                is_said = True
            time.sleep(POLL)


def _build_folder() -> Path:
    named = os.environ.get("TORCH_EXTENSIONS_DIR")
    if named:
        return Path(named)
    from torch.utils.cpp_extension import get_default_build_root

    return Path(get_default_build_root())


def _age(path: Path) -> float | None:
    """Return the seconds since a file was made; None if it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
