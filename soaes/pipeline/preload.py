"""Load heavy modules and the dictionary of words once for a whole sweep.

Every stage that computes is a fork of the process that imports this module. That process starts
with SIGINT blocked, see `scheduler.sigint_blocked`. While it loads, Ctrl-C ends it in silence; its
forks start with SIGINT blocked again.

Nothing that it loads is garbage. The collector is off meanwhile, where it would take a third of the
time, and what is loaded is frozen: no fork looks it through again, and its pages stay shared.
"""

import gc
import signal

if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

gc.disable()

import torch  # noqa: E402, F401
from transformers.models.qwen2 import modeling_qwen2  # noqa: E402, F401

from soaes.metrics import rouge  # noqa: E402
from soaes.stages import evaluate, speculate, train  # noqa: E402, F401

rouge.segmenter()

gc.freeze()
gc.enable()

if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, signal.default_int_handler)
