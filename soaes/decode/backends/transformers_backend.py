"""transformers' own `generate()`: assisted generation and its prompt lookup, and without either as their baseline.

Equal terms: n drafted tokens in every block (constant schedule, no confidence threshold), one temperature and top-p on both sides, the
library's default cache. Under sampling it verifies a model's drafts by rejection and looked-up ones by match, one law for a one-hot.
Its lookup drafts what followed the first occurrence of the text's end; ours the latest."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from soaes.decode.backends.base import (
    DecoderPair,
    ExternalGeneration,
    SpeculationSpec,
    speculation_spec,
)
from soaes.decode.backends.native import load
from soaes.decode.base import Generation, check_request
from soaes.pipeline.validation import check


@contextmanager
def open_transformers(
    decode: partial,
    folders: dict[str, Path],
    *,
    eos: int,
    sampling: dict[str, float],
    dtype: str,
    device: str,
    threads: int,
) -> Iterator[DecoderPair]:
    """decode: one of ours, as a description; folders: the models it takes, by its argument names."""
    plan = speculation_spec(decode, "transformers")
    check(**sampling)
    torch.set_num_threads(threads)
    models = {name: load(folder, dtype, device) for name, folder in folders.items()}
    for model in models.values():  # a checkpoint's own defaults would mix with ours
        model.generation_config = GenerationConfig()
    settings = _settings(eos, **sampling)
    baseline = Plain(models["target"], settings)
    method = (
        baseline
        if plan.kind == "none"
        else Assisted(models["target"], settings, plan, models.get("draft"))
    )
    yield DecoderPair(
        method,
        baseline,
        plan.n,
        min(model.config.max_position_embeddings for model in models.values()),
    )


def _settings(eos: int, temperature: float, top_p: float) -> dict:
    """The arguments of GenerationConfig for our two numbers. top_k: transformers would cut to 50 tokens by itself."""
    ends = {"eos_token_id": eos, "pad_token_id": eos}
    return ends | (
        {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
        if temperature
        else {"do_sample": False}
    )


class Plain:
    """`generate()` as it is: one token a step."""

    def __init__(self, target: PreTrainedModel, settings: dict):
        self.target, self.settings = target, settings

    def generate(
        self, prompt_ids: list[int], max_new_tokens: int, generator: torch.Generator
    ) -> Generation:
        tokens = self._continue(prompt_ids, max_new_tokens, generator)
        return Generation(tokens, steps=len(tokens))

    def _continue(self, prompt_ids, max_new_tokens, generator, **options) -> list[int]:
        check_request(prompt_ids, max_new_tokens)
        config = GenerationConfig(**self.settings, max_new_tokens=max_new_tokens)
        ids_1T = torch.tensor([prompt_ids], device=self.target.device)
        with torch.random.fork_rng(
            [self.target.device] if self.target.device.type == "cuda" else []
        ):
            torch.manual_seed(generator.initial_seed())  # generate() takes no generator of its own
            out_1T = self.target.generate(
                ids_1T, attention_mask=torch.ones_like(ids_1T), generation_config=config, **options
            )
        return out_1T[0, len(prompt_ids) :].tolist()


class Assisted(Plain):
    """Assisted generation with a draft model, or with lookup in the prompt."""

    def __init__(
        self,
        target: PreTrainedModel,
        settings: dict,
        plan: SpeculationSpec,
        draft: PreTrainedModel | None,
    ):
        super().__init__(target, settings)
        self.n, self.options = plan.n, {"assistant_model": draft}
        if draft is None:
            self.options = {
                "prompt_lookup_num_tokens": plan.n,
                "max_matching_ngram_size": plan.max_ngram,
            }
        else:
            constant = {
                "num_assistant_tokens": plan.n,
                "num_assistant_tokens_schedule": "constant",
                "assistant_confidence_threshold": 0.0,
            }
            draft.generation_config = GenerationConfig(**constant)

    def generate(
        self, prompt_ids: list[int], max_new_tokens: int, generator: torch.Generator
    ) -> ExternalGeneration:
        blocks = _Blocks(len(prompt_ids), greedy=not self.settings["do_sample"])
        hook = self.target.register_forward_hook(blocks.see, with_kwargs=True)
        try:
            tokens = self._continue(
                prompt_ids, max_new_tokens, generator, streamer=blocks, **self.options
            )
        finally:
            hook.remove()
        return blocks.told(tokens, self.n)


class _Blocks(BaseStreamer):
    """What was drafted, from the target's inputs, and what of it was emitted, from the stream: a row of each for every forward."""

    def __init__(self, prompt: int, greedy: bool):
        self.prompt, self.greedy = prompt, greedy
        self.read, self.predicted, self.written = (
            [],
            [],
            [],
        )  # tensors: they become numbers when the text is done

    def see(self, module, arguments, options, output) -> None:
        ids_T = options["input_ids"][0]
        self.read.append(
            ids_T[(1 if self.read else self.prompt) :]
        )  # behind the known token, or the prompt, stand the drafted ones
        if self.greedy:
            self.predicted.append(output.logits[0].argmax(-1))

    def put(self, value: torch.Tensor) -> None:
        self.written.append(value.flatten())

    def end(self) -> None:
        pass

    def told(self, tokens: list[int], n: int) -> ExternalGeneration:
        """The counts of one text. Greedy tests are known at every position; under sampling the library keeps them to itself."""
        drafted, emitted = (
            [row.tolist() for row in rows] for rows in (self.read, self.written[1:])
        )  # the stream begins with the prompt
        accepted = [_common(*pair) for pair in zip(drafted, emitted, strict=True)]
        told = ExternalGeneration(
            tokens, steps=len(drafted), accepted=sum(accepted), drafted=sum(map(len, drafted))
        )
        told.prefixes_per_position = [sum(count > at for count in accepted) for at in range(n)]
        if self.greedy:
            passed = [
                [one == best for one, best in zip(row, best_T.tolist())]
                for row, best_T in zip(drafted, self.predicted)
            ]
            told.tests_per_position = [sum(len(row) > at for row in passed) for at in range(n)]
            told.accepts_per_position = [
                sum(row[at] for row in passed if len(row) > at) for at in range(n)
            ]
            told.overlap = float(sum(told.accepts_per_position))
        return told


def _common(drafted: list[int], emitted: list[int]) -> int:
    """Drafted tokens that were emitted: a correction never repeats the token it replaces."""
    differing = (at for at, (one, other) in enumerate(zip(drafted, emitted)) if one != other)
    return next(differing, min(len(drafted), len(emitted)))
