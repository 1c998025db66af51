"""What a stage is forked from: heavy imports and the dictionary of words, read once for a whole sweep."""

import torch  # noqa: F401
from transformers.models.qwen2 import modeling_qwen2  # noqa: F401

from soaes.metrics import rouge
from soaes.stages import evaluate, speculate, train  # noqa: F401

rouge.segmenter()
