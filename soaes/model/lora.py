"""LoRA by peft: adapters are put into a model, trained alone, and merged before it is saved.

Between the two every weight of the parent is frozen. A merged model is one like its parent: its
folder has the same names and shapes, and nothing that reads it knows of adapters. What is trained
is up to `soaes.model.settings.LoraSettings`.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from soaes.model.settings import LoraSettings


def add_adapters(model: PreTrainedModel, settings: LoraSettings) -> Any:
    """Put adapters beside a model's matrices, in place, and freeze all else.

    The adapters are drawn from torch's generator.

    Args:
        model: A Hugging Face causal LM.
        settings: Rank, factor and matrices.

    Returns:
        peft's handle on the model, for `merge`.

    Raises:
        ValueError: A name of `target_modules` matches no matrix of the model.
    """
    _check_names(model, settings)
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=0.0,
        target_modules=list(settings.target_modules),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def merge(adapters: Any) -> None:
    """Add each adapter's product to the matrix beside it, and take the adapters out, in place."""
    adapters.merge_and_unload()


def _check_names(model: PreTrainedModel, settings: LoraSettings) -> None:
    """Check that every name is one of a matrix in the layers: peft asks it of one name alone."""
    modules = model.base_model.named_modules()
    matrices = [path for path, module in modules if isinstance(module, torch.nn.Linear)]
    known = {path.rpartition(".")[2] for path in matrices}
    unknown = [name for name in settings.target_modules if name not in known]
    if unknown:
        raise ValueError(
            f"target_modules: {', '.join(unknown)}: a model of type {model.config.model_type} has "
            f"no such matrix; it has {', '.join(sorted(known))}"
        )
