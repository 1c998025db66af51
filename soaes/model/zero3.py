"""Training in shares by DeepSpeed's ZeRO-3, the paper's setting.

Each rank reads, holds, updates and writes a run of every flattened weight. With bf16-mixed the
weights that layers compute with are bfloat16, and the optimizer keeps them in float32 beside its
moments, in the memory of the host with `cpu_offload`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.strategies import DeepSpeedStrategy
from pytorch_lightning.strategies.deepspeed import remove_module_hooks
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.initialization import no_init_weights

from soaes.model import checkpoint, compiled_operators, sharding
from soaes.model.parallel import Parallel
from soaes.pipeline import private_api


class Zero3(Parallel):
    """A model in shares, by DeepSpeed."""

    is_sharded = True

    @property
    def layout(self) -> str:
        """See Parallel. DeepSpeed's files are read by as many ranks as wrote them."""
        return f"zero3 on {self.execution.devices} devices"

    @property
    def adamw(self) -> Callable[..., torch.optim.Optimizer]:
        """See Parallel. With offload it is DeepSpeed's, of the same rule."""
        if not self.execution.cpu_offload:
            return super().adamw
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        return DeepSpeedCPUAdam

    def load(self, folder: Path) -> PreTrainedModel:
        """See Parallel; with bf16-mixed the weights are bfloat16.

        Raises:
            ValueError: The folder holds no model, its files lack a weight, or they hold more than
                bfloat16 does.
        """
        import deepspeed

        checkpoint.check_loadable(folder)
        self.saved_dtype = checkpoint.stored_dtype(folder)
        is_half = self.precision == "bf16-mixed"
        if is_half and self.saved_dtype != torch.bfloat16:
            raise ValueError(
                f"strategy=zero3 with precision=bf16-mixed begins with the weights as bfloat16, "
                f"and those of {folder} are {self.saved_dtype}: they would be rounded; set "
                "runtime.execution.strategy=fsdp2, or precision=32-true"
            )
        sharding.join(self.execution.device)
        compiled_operators.wait_for_builds()
        deepspeed.init_distributed(dist.get_backend())
        config = AutoConfig.from_pretrained(folder)
        dtype = torch.bfloat16 if is_half else torch.float32
        settings = {
            "train_micro_batch_size_per_gpu": 1,
            "bf16": {"enabled": is_half},  # zero.Init(dtype=...) is bfloat16 on a CPU in any case
            "zero_optimization": {"stage": 3},
        }
        with deepspeed.zero.Init(config_dict_or_path=settings), no_init_weights():
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        model.tie_weights()
        buffers = dict(sharding.empty_model(config).named_buffers())  # zero.Init casts them
        sharding.set_buffers(model, buffers, str(model.device))
        _read_weights(model, folder)
        checkpoint.load_settings(model, folder)
        return model

    def place(self, model: PreTrainedModel) -> PreTrainedModel:
        """See Parallel. DeepSpeed shards it when Lightning sets it up.

        Raises:
            ValueError: The weights would be rounded.
        """
        if self.precision == "bf16-mixed":
            raise ValueError(
                "strategy=zero3 with precision=bf16-mixed begins with weights in bfloat16, and a "
                "new model has them in float32; set runtime.execution.strategy=fsdp2"
            )
        sharding.join(self.execution.device)
        compiled_operators.wait_for_builds()
        return model

    def strategy(self) -> pl.strategies.Strategy:
        """See Parallel."""
        return Zero3Strategy(
            stage=3,
            offload_optimizer=self.execution.cpu_offload,
            pin_memory=self.execution.cpu_offload and self.execution.device != "cpu",
            process_group_backend=dist.get_backend(),
            logging_batch_size_per_gpu=self.execution.micro_batch_size,
        )

    def write_shares(self, folder: Path, trainer: pl.Trainer, module: Any) -> None:
        """See Parallel."""
        trainer.model.save_checkpoint(str(folder), tag="state")

    def read_shares(self, folder: Path, trainer: pl.Trainer, module: Any) -> None:
        """See Parallel."""
        trainer.model.load_checkpoint(str(folder), tag="state", load_lr_scheduler_states=False)


class Zero3Strategy(DeepSpeedStrategy):
    """Lightning's, which also runs on CPUs and divides a loss by its micro-batches once."""

    def setup_environment(self) -> None:
        """Set up as Lightning does, on a CPU too."""
        super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self) -> None:
        """Set up as Lightning does, on a CPU too."""
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    def teardown(self) -> None:
        """Leave the shares where they are.

        Lightning's ends a validation by moving the module to the host, and with it the small
        weights that DeepSpeed keeps gathered: training would find them there.
        """
        assert self.cluster_environment is not None and self.accelerator is not None
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        self.accelerator.teardown()
        self.checkpoint_io.teardown()

    def backward(self, closure_loss: Any, *args: Any, **kwargs: Any) -> Any:
        """Keep the loss: Lightning has divided it by a step's micro-batches already."""
        return super().backward(closure_loss, *args, scale_wrt_gas=False, **kwargs)

    def _setup_model_and_optimizer(
        self, model: Any, optimizer: Any, lr_scheduler: Any = None
    ) -> tuple[Any, Any]:
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        engine, optimizer = self._initialize(
            model,
            config=self.config,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            model_parameters=weights,
        )
        return engine, optimizer

    def _initialize_deepspeed_inference(self, model: Any) -> None:
        assert isinstance(self.config, dict)
        names = ("bf16", "zero_allow_untested_optimizer", "zero_optimization")
        config = {name: self.config[name] for name in names if name in self.config}
        config["train_micro_batch_size_per_gpu"] = 1
        self.model, _ = self._initialize(model, config=config, model_parameters=[])

    def _initialize(self, model: Any, **settings: Any) -> tuple[Any, Any]:
        """An engine on this rank's device; a CPU has no number of its own."""
        import deepspeed

        remove_module_hooks(model)  # else an earlier engine, as of a validation, gathers as well
        settings["config"]["zero_optimization"].update(_sizes(model.model))
        # gradients are summed in the type of the arithmetic by default, also over micro-batches
        settings["config"]["data_types"] = {"grad_accum_dtype": "fp32"}
        settings["config"]["communication_data_type"] = "fp32"
        rank = argparse.Namespace(device_rank=self.local_rank)
        engine, optimizer, _, _ = deepspeed.initialize(
            args=rank, model=model, dist_init_required=False, **settings
        )
        return engine, optimizer


def _sizes(model: PreTrainedModel) -> dict[str, int]:
    """Return the weights that are gathered at once and the gradients that are reduced at once.

    They are those of a layer and of the next, as under FSDP2, and soaes.bill counts them so.
    DeepSpeed's own are constants: a device would keep up to 1e9 weights gathered, which is the
    whole of a small model.
    """
    layer = max(
        sum(sharding.whole_shape(weight).numel() for weight in layer.parameters())
        for layer in private_api.decoder_layers(model)
    )
    return {
        "stage3_max_live_parameters": 2 * layer,
        "stage3_max_reuse_distance": layer,
        "stage3_prefetch_bucket_size": layer,
        "reduce_bucket_size": layer,
    }


def _read_weights(model: PreTrainedModel, folder: Path) -> None:
    """Read this rank's share of every weight from safetensors."""
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as tensors:
            files.update(dict.fromkeys(tensors.keys(), path))
    weights = sharding.saved_tensors(model)
    missing = sorted(weights.keys() - files.keys())
    if missing:
        raise ValueError(
            f"{folder} has no {missing[0]} among its safetensors ({len(missing)} of {len(weights)} "
            "weights are missing), so that its weights cannot be read in shares; "
            "set runtime.execution.strategy=ddp, which reads what transformers reads"
        )
    for name, weight in weights.items():
        with safe_open(files[name], "pt") as tensors:
            _read_share(weight, tensors.get_slice(name))


@torch.no_grad()
def _read_share(weight: Any, stored: Any) -> None:
    """Fill a rank's share, a run of the flattened weight; only rows that it touches are read."""
    if not hasattr(weight, "ds_tensor"):  # a buffer
        weight.copy_(stored[:])
        return
    length = weight.ds_tensor.numel()
    start = length * dist.get_rank()
    stop = min(start + length, weight.ds_numel)  # the last share is padded
    if start >= stop:
        return
    row = weight.ds_numel // stored.get_shape()[0]
    first_row = start // row
    last_row = -(-stop // row)
    run = stored[first_row:last_row].reshape(-1)
    offset = first_row * row
    weight.ds_tensor.data[: stop - start].copy_(run[start - offset : stop - offset])
