"""transformers' `generate()`: assisted generation, its prompt lookup, and plain as their baseline.

Equal terms: n drafted tokens in every block (constant schedule, no confidence threshold), one
temperature and top-p on both sides, the library's default cache. Under sampling it verifies a
model's drafts by rejection and looked-up ones by match, which for a one-hot draft is the same rule.
Its lookup drafts what followed the first occurrence of the text's end; ours takes the latest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from soaes.decode.backends.base import (
    BackendSettings,
    DecoderPair,
    ExternalGeneration,
)
from soaes.decode.backends.native import load_pair
from soaes.decode.base import Generation, check_request
from soaes.decode.settings import SamplingSettings, SpeculationSpec, speculation_spec


@contextmanager
def open_transformers(folders: dict[str, Path], settings: BackendSettings) -> Iterator[DecoderPair]:
    """Load the models for `generate()`.

    Args:
        folders: Model folders, see `model_folders`.
        settings: Our decoder as a description, sampling, dtype, device.

    Raises:
        ValueError: The library has no such decoder.
    """
    spec = speculation_spec(settings.decode, "transformers")
    models = load_pair(folders, settings)
    for model in models.values():  # a checkpoint's own defaults would mix with ours
        model.generation_config = GenerationConfig()
    options = _generation_options(settings.eos, settings.sampling)
    baseline = method = Plain(models["target"], options)
    if spec.kind != "none":
        method = Assisted(models["target"], options, spec, models.get("draft"))
    positions = min(model.config.max_position_embeddings for model in models.values())
    yield DecoderPair(method, baseline, spec.n, positions)


def _generation_options(eos: int, sampling: SamplingSettings) -> dict[str, Any]:
    """The arguments of GenerationConfig for our sampling."""
    options: dict[str, Any] = {"eos_token_id": eos, "pad_token_id": eos}
    if sampling.greedy:
        return options | {"do_sample": False}
    options |= {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p}
    return options | {"top_k": 0}  # by default transformers keeps 50 tokens only


class Plain:
    """`generate()` as it is: one token a step.

    Args:
        target: The model.
        options: Arguments of GenerationConfig.
    """

    n = 0

    def __init__(self, target: PreTrainedModel, options: dict[str, Any]) -> None:
        self.target = target
        self.options = options

    def generate(
        self, prompt_ids: list[int], max_new_tokens: int, generator: torch.Generator
    ) -> Generation:
        """Decode one prompt, see `Decoder.generate`."""
        tokens = self._continue(prompt_ids, max_new_tokens, generator)
        return Generation(tokens, steps=len(tokens))

    def _continue(
        self,
        prompt_ids: list[int],
        max_new_tokens: int,
        generator: torch.Generator,
        **arguments: Any,
    ) -> list[int]:
        """The new tokens of one call of `generate()`."""
        check_request(prompt_ids, max_new_tokens)
        config = GenerationConfig(**self.options, max_new_tokens=max_new_tokens)
        device = self.target.device
        ids_1T = torch.tensor([prompt_ids], device=device)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(generator.initial_seed())  # generate() takes no generator of its own
            out_1T = self.target.generate(
                ids_1T,
                attention_mask=torch.ones_like(ids_1T),
                generation_config=config,
                **arguments,
            )
        new_tokens: list[int] = out_1T[0, len(prompt_ids) :].tolist()
        return new_tokens


class Assisted(Plain):
    """Assisted generation with a draft model, or with lookup in the prompt.

    Args:
        target: The model that verifies.
        options: Arguments of GenerationConfig.
        spec: How to draft.
        draft: The draft model; None for lookup.
    """

    def __init__(
        self,
        target: PreTrainedModel,
        options: dict[str, Any],
        spec: SpeculationSpec,
        draft: PreTrainedModel | None,
    ) -> None:
        super().__init__(target, options)
        self.n = spec.n
        self.draft = draft
        self.arguments: dict[str, Any]
        if draft is None:
            self.arguments = {
                "prompt_lookup_num_tokens": spec.n,
                "max_matching_ngram_size": spec.max_ngram,
            }
        else:
            self.arguments = {"assistant_model": draft}
            draft.generation_config = GenerationConfig(
                num_assistant_tokens=spec.n,
                num_assistant_tokens_schedule="constant",
                assistant_confidence_threshold=0.0,
            )

    def generate(
        self, prompt_ids: list[int], max_new_tokens: int, generator: torch.Generator
    ) -> ExternalGeneration:
        """Decode one prompt, see `Decoder.generate`, and count its blocks."""
        blocks = _BlockRecorder(len(prompt_ids), greedy=not self.options["do_sample"])
        hook = self.target.register_forward_hook(blocks.record_forward, with_kwargs=True)
        try:
            tokens = self._continue(
                prompt_ids, max_new_tokens, generator, streamer=blocks, **self.arguments
            )
        finally:
            hook.remove()
        return blocks.generation(tokens, self.n)


class _BlockRecorder(BaseStreamer):
    """Records the blocks of one text, one entry per forward, as tensors until it is complete.

    What was drafted is in the target's inputs, what of it was emitted is in the stream.
    """

    def __init__(self, prompt_length: int, greedy: bool) -> None:
        self.prompt_length = prompt_length
        self.greedy = greedy
        self.drafted: list[torch.Tensor] = []
        self.predicted: list[torch.Tensor] = []  # the target's argmax at every position; if greedy
        self.streamed: list[torch.Tensor] = []

    def record_forward(self, module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """Forward hook: in the input the drafted tokens follow the known one, or the prompt."""
        ids_T = kwargs["input_ids"][0]
        known = 1 if self.drafted else self.prompt_length
        self.drafted.append(ids_T[known:])
        if self.greedy:
            self.predicted.append(output.logits[0].argmax(-1))

    def put(self, value: torch.Tensor) -> None:
        """Streamer: called with the prompt, and then with each block's new tokens."""
        self.streamed.append(value.flatten())

    def end(self) -> None:
        """Streamer: called at the end of the text."""

    def generation(self, tokens: list[int], n: int) -> ExternalGeneration:
        """Return the counts of the text.

        Greedy tests are known at every position; under sampling the library does not report them.
        """
        drafted: list[list[int]] = [ids_T.tolist() for ids_T in self.drafted]
        emitted: list[list[int]] = [ids_T.tolist() for ids_T in self.streamed[1:]]
        accepted = [_common_prefix(*block) for block in zip(drafted, emitted, strict=True)]
        generation = ExternalGeneration(
            tokens, steps=len(drafted), accepted=sum(accepted), drafted=sum(map(len, drafted))
        )
        positions = range(n)
        generation.prefixes_per_position = [
            sum(count > position for count in accepted) for position in positions
        ]
        if self.greedy:
            passed = [
                [token == best for token, best in zip(row, best_T.tolist())]
                for row, best_T in zip(drafted, self.predicted)
            ]
            generation.tests_per_position = [
                sum(len(row) > position for row in passed) for position in positions
            ]
            generation.accepts_per_position = [
                sum(row[position] for row in passed if len(row) > position)
                for position in positions
            ]
            generation.overlap = float(sum(generation.accepts_per_position))
        return generation


def _common_prefix(drafted: list[int], emitted: list[int]) -> int:
    """Count drafted tokens that were emitted: a correction never repeats the token it replaces."""
    for position, (draft_token, token) in enumerate(zip(drafted, emitted)):
        if draft_token != token:
            return position
    return min(len(drafted), len(emitted))
