"""Load heavy modules and the dictionary of words once for a whole sweep.

Every stage that computes is a fork of the process that imports this module. That process starts
with SIGINT blocked, see `scheduler.sigint_blocked`. While it loads, Ctrl-C ends it in silence; its
forks start with SIGINT blocked again.
"""

import signal

if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

import torch  # noqa: F401
from transformers.models.qwen2 import modeling_qwen2  # noqa: F401

from soaes.metrics import rouge
from soaes.stages import evaluate, speculate, train  # noqa: F401

rouge.segmenter()

if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, signal.default_int_handler)
