"""Functions run as the ranks of one stage, each in a process of its own, as torchrun would."""

import os
import sys
import time
import traceback

from tests.helpers import forks
from tests.helpers.ports import free_port


def run(function, *arguments, ranks=2, seconds=300):
    """Call function(*arguments) in each rank, and return the ranks' exit codes.

    The others are killed when one ends badly, as torchrun does.
    """
    context = forks.context()
    port = free_port()
    processes = []
    for rank in range(ranks):
        process = context.Process(target=_rank, args=(rank, ranks, port, function, arguments))
        process.start()
        processes.append(process)
    end = time.monotonic() + seconds
    while any(process.is_alive() for process in processes):
        failed = any(process.exitcode for process in processes)
        if failed or time.monotonic() > end:
            for process in processes:
                process.kill()
        time.sleep(0.02)
    return [process.exitcode for process in processes]


def _rank(rank, ranks, port, function, arguments):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",  # by which Lightning knows that ranks are there
        "GLOO_SOCKET_IFNAME": "lo",
    }
    import torch

    torch.set_num_threads(1)
    try:
        function(*arguments)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
