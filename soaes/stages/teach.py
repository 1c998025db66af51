"""Store what the teacher says about every row that the student will read. The student is trained elsewhere."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from soaes.data import teacher_store, token_store
from soaes.execution import Execution
from soaes.model import attention, checkpoint


def hidden(teacher: Path, rows: Path, execution: Execution = Execution(), *, out: Path) -> None:
    """Final hidden states of `teacher` over the training rows, float32, and its output matrix once."""
    torch.set_num_threads(execution.threads)
    model = checkpoint.load(teacher).to(execution.device).eval()
    attention.choose(model, execution.attention)
    train = token_store.load(rows / "train")
    hidden_RTD = teacher_store.create(out, *train.ids_RT.shape, model.lm_head.weight.detach().cpu().clone(), rows.name, tokenizer_digest(teacher))
    with torch.inference_mode():
        for start in range(0, len(train.ids_RT), execution.micro_batch):
            end = start + execution.micro_batch
            ids_BT, _, positions_BT = (torch.from_numpy(array[start:end].astype("int64")).to(execution.device) for array in train)
            hidden_RTD[start:end] = model.model(ids_BT, position_ids=positions_BT, use_cache=False).last_hidden_state.float().cpu()
    hidden_RTD.flush()


def tokenizer_digest(model: Path) -> str:
    return hashlib.sha256((model / "tokenizer.json").read_bytes()).hexdigest()[:12]
