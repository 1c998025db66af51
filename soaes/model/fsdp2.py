"""Training in shares by FSDP2 (torch's `fully_shard`).

Each rank reads, holds, updates and writes its rows of every weight, in float32. A layer's weights
are gathered in the compute type when the layer is called, and its gradients are summed over the
ranks in float32. Neither device nor host of any rank ever holds the whole model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.strategies import ModelParallelStrategy
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load as load_shares
from torch.distributed.checkpoint.state_dict_saver import save as save_shares
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from transformers import AutoConfig, PreTrainedModel

from soaes.model import checkpoint, output_head, sharding
from soaes.model.parallel import Parallel
from soaes.pipeline import private_api

# Lightning's names of a precision -> the type that layers compute in.
COMPUTE = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}


class Fsdp2(Parallel):
    """A model in shares, by FSDP2."""

    is_sharded = True

    @property
    def layout(self) -> str:
        """See Parallel. Another number of ranks reads it as well."""
        return "fsdp2"

    @property
    def trainer_precision(self) -> str:
        """See Parallel. FSDP2 itself casts what it gathers."""
        return "32-true"

    @property
    def device(self) -> str:
        """Where shares are kept."""
        return "cpu" if self.execution.cpu_offload else self.compute_device

    @property
    def compute_device(self) -> str:
        """Where layers compute; `join` has chosen this rank's."""
        return self.execution.device.partition(":")[0]

    def load(self, folder: Path) -> PreTrainedModel:
        """See Parallel.

        Raises:
            ValueError: The folder holds no model, or its files lack a weight.
        """
        checkpoint.check_loadable(folder)
        self.saved_dtype = checkpoint.stored_dtype(folder)
        sharding.join(self.execution.device)
        model = sharding.empty_model(AutoConfig.from_pretrained(folder))
        buffers = dict(model.named_buffers())
        self._shard(model)
        model.to_empty(device=self.device)
        sharding.set_buffers(model, buffers, self.compute_device)
        _read_weights(model, folder)
        checkpoint.load_settings(model, folder)
        return model

    def place(self, model: PreTrainedModel) -> PreTrainedModel:
        """See Parallel."""
        sharding.join(self.execution.device)
        buffers = dict(model.named_buffers())
        model.to(self.device)
        self._shard(model)
        sharding.set_buffers(model, buffers, self.compute_device)
        return model

    def _shard(self, model: PreTrainedModel) -> None:
        """Shard each layer, the embedding and the output matrix; what is left is the final norm's.

        The body and the output matrix are roots of their own, since a loss calls the two and
        never the model as a whole. An embedding and an output matrix that are tied are one group.
        """
        offload = OffloadPolicy()
        if self.execution.cpu_offload:
            offload = CPUOffloadPolicy()
        policies: dict[str, Any] = {
            "mesh": init_device_mesh(self.compute_device, (dist.get_world_size(),)),
            "reshard_after_forward": True,
            "mp_policy": MixedPrecisionPolicy(COMPUTE[self.precision], torch.float32),
            "offload_policy": offload,
        }
        output_head.compute_losses_in_head(model)  # before fully_shard changes its class again
        embedding = model.get_input_embeddings()
        head = model.get_output_embeddings()
        for layer in private_api.decoder_layers(model):
            fully_shard(layer, **policies)
        if embedding.weight is head.weight:
            fully_shard([embedding, head], **policies)
            # Torch waits for the embedding to be called again before it releases the weight.
            head.register_forward_hook(_release)
        else:
            fully_shard(embedding, **policies)
            fully_shard(head, **policies)
        fully_shard(model.base_model, **policies)

    def strategy(self) -> pl.strategies.Strategy:
        """See Parallel."""
        return _PlacedStrategy(data_parallel_size=dist.get_world_size(), tensor_parallel_size=1)

    def write_shares(self, folder: Path, trainer: pl.Trainer, module: Any) -> None:
        """See Parallel."""
        weights, optimizer = get_state_dict(module, trainer.optimizers[0])
        save_shares({"module": weights, "optimizer": optimizer}, checkpoint_id=folder)

    def read_shares(self, folder: Path, trainer: pl.Trainer, module: Any) -> None:
        """See Parallel."""
        weights, optimizer = get_state_dict(module, trainer.optimizers[0])
        state: dict[str, Any] = {"module": weights, "optimizer": optimizer}
        load_shares(state, checkpoint_id=folder)
        set_state_dict(
            module,
            trainer.optimizers[0],
            model_state_dict=state["module"],
            optim_state_dict=state["optimizer"],
        )


def _release(head: Any, inputs: Any, output: Any) -> None:
    """Keep this rank's share alone of a weight that was gathered for a call."""
    head.reshard()


class _PlacedStrategy(ModelParallelStrategy):
    """Lightning's, for a module that lies where it belongs."""

    def model_to_device(self) -> None:
        """Leave the shares where they are: with offload that is not the device that computes."""


def _read_weights(model: PreTrainedModel, folder: Path) -> None:
    """Read this rank's share of every weight, and nothing else, from safetensors."""
    tensors = sharding.saved_tensors(model)
    reader = HuggingFaceStorageReader(str(folder))
    missing = sorted(tensors.keys() - reader.read_metadata().state_dict_metadata.keys())
    if missing:
        raise ValueError(
            f"{folder} has no {missing[0]} among its safetensors ({len(missing)} of {len(tensors)} "
            "weights are missing), so that its weights cannot be read in shares; "
            "set runtime.execution.strategy=ddp, which reads what transformers reads"
        )
    state: dict[str, Any] = dict(tensors)
    load_shares(state, storage_reader=reader)
