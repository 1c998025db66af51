"""Weights of which every rank holds a share: what FSDP2 and ZeRO-3 have in common.

Under FSDP2 a weight is a DTensor; under ZeRO-3 it is an empty tensor with attributes that DeepSpeed
names `ds_...`. What else there is to know of the two stands in `soaes.model.fsdp2` and
`soaes.model.zero3`; everybody else asks here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import AutoModelForCausalLM, PreTrainedModel

from soaes.pipeline.runtime import first_rank
from soaes.pipeline.store import write_json

# The most bytes of weights in a file, unless one weight has more: what the first rank holds of the
# others' weights while it writes a folder.
FILE_BYTES = 5 * 10**9

# ---------------------------------------------------------------- ranks


def join(device: str) -> None:
    """Join the other ranks of this stage, unless that was done.

    Raises:
        ValueError: The process was not started as a rank.
    """
    if dist.is_initialized():
        return
    if "WORLD_SIZE" not in os.environ:
        raise ValueError(
            "strategy=fsdp2 and strategy=zero3 run as ranks of torchrun; build the stage with "
            "soaes.run and list it in runtime.torchrun, or set runtime.execution.strategy=auto"
        )
    if device == "cpu":
        dist.init_process_group("gloo")
        return
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl")


def gather(value: Any) -> list[Any]:
    """Return the value of every rank, in order; every rank calls it."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


# ---------------------------------------------------------------- weights


def is_sharded(model: Any) -> bool:
    """Tell whether each rank holds only its share of the weights."""
    return any(isinstance(w, DTensor) or hasattr(w, "ds_id") for w in model.parameters())


def own_share(weight: torch.Tensor) -> torch.Tensor:
    """Return what this rank holds of a weight; all of it where it is not sharded."""
    if isinstance(weight, DTensor):
        return weight.to_local()
    return getattr(weight, "ds_tensor", weight)


def whole_shape(weight: torch.Tensor) -> torch.Size:
    """Return the shape of a weight over all ranks."""
    return torch.Size(getattr(weight, "ds_shape", weight.shape))


def whole_bytes(weight: torch.Tensor) -> int:
    """Return the bytes of a weight over all ranks."""
    return whole_shape(weight).numel() * weight.element_size()


def empty_model(config: Any) -> PreTrainedModel:
    """Create a causal LM whose weights are on the meta device, and whose buffers are real.

    No file has rotary frequencies and the like; they are made here, as the model makes them, in
    float32.
    """
    hook: Callable[..., Any] = _on_meta  # torch declares it without the value that it documents
    handle = register_module_parameter_registration_hook(hook)
    try:
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    finally:
        handle.remove()


def _on_meta(
    module: torch.nn.Module, name: str, weight: torch.nn.Parameter | None
) -> torch.nn.Parameter | None:
    if weight is None or weight.is_meta:  # None: keep it; a tied weight comes twice
        return None
    return torch.nn.Parameter(weight.to("meta"), requires_grad=weight.requires_grad)


def set_buffers(model: torch.nn.Module, buffers: dict[str, torch.Tensor], device: str) -> None:
    """Replace buffers by name, with their dtypes."""
    for name, buffer in buffers.items():
        path, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(path), attribute, buffer.to(device))


def saved_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return what a folder holds of a model: a tied weight once, and persistent buffers."""
    persistent = model.state_dict().keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in persistent}
    return {**dict(model.named_parameters()), **buffers}


# ---------------------------------------------------------------- writing a folder


@torch.no_grad()
def save_weights(model: torch.nn.Module, folder: Path, dtype: torch.dtype) -> None:
    """Write a sharded model's weights as safetensors that `from_pretrained` reads.

    Every rank calls it and gathers one weight at a time; the first rank holds a file's weights.

    Args:
        model: A Hugging Face model.
        folder: Where to; it exists.
        dtype: Of what is written; what is not floating-point keeps its own.
    """
    tensors = saved_tensors(model)
    sizes = {name: _saved_bytes(tensor, dtype) for name, tensor in tensors.items()}
    groups = _split(sizes, FILE_BYTES)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(groups, 1):
        file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        if len(groups) == 1:
            file = "model.safetensors"
        weight_map.update(dict.fromkeys(names, file))
        whole = {}
        for name in names:
            with _gathered(tensors[name]) as tensor:
                if first_rank():
                    whole[name] = _for_file(tensor, dtype)
        if first_rank():
            save_file(whole, folder / file, metadata={"format": "pt"})
    if len(groups) > 1 and first_rank():
        total = {"total_size": sum(sizes.values())}
        index = {"metadata": total, "weight_map": weight_map}
        write_json(folder / "model.safetensors.index.json", index)
    dist.barrier()


@contextmanager
def _gathered(weight: torch.Tensor) -> Iterator[torch.Tensor]:
    """The whole of a weight; every rank takes part."""
    if isinstance(weight, DTensor):
        yield weight.full_tensor()
    elif hasattr(weight, "ds_id"):
        from deepspeed.runtime.zero import GatheredParameters

        with GatheredParameters([weight]):
            yield weight
    else:
        yield weight


def _for_file(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A copy in main memory."""
    kept = dtype if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to("cpu", kept, copy=True).contiguous()


def _saved_bytes(tensor: torch.Tensor, dtype: torch.dtype) -> int:
    kept = dtype if tensor.is_floating_point() else tensor.dtype
    return whole_shape(tensor).numel() * kept.itemsize


def _split(sizes: dict[str, int], limit: int) -> list[list[str]]:
    """Names in order, in groups of at most `limit` bytes; what is larger has one of its own."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if groups[-1] and filled + size > limit:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    return groups
