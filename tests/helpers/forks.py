"""The process of which a test's own processes are forks.

Python starts one for each process, whoever forks first, and it loads what that one asks for. So all
ask for the same: what stages need, and what W&B loads when its first run starts.
"""

import multiprocessing

from soaes.pipeline.private_api import WANDB_MODULES

PRELOAD = ["soaes.pipeline.preload", *WANDB_MODULES]


def context():
    """Return the context of processes that are forks."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(PRELOAD)
    return forks
