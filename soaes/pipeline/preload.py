"""Load heavy modules and the dictionary of words once for a whole sweep.

Every stage that computes is a fork of the process that imports this module.
"""

import torch  # noqa: F401
from transformers.models.qwen2 import modeling_qwen2  # noqa: F401

from soaes.metrics import rouge
from soaes.stages import evaluate, speculate, train  # noqa: F401

rouge.segmenter()
