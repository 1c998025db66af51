"""One token a step from the target alone: what every other decoder is compared with, and the law that they keep."""

import torch

from soaes.decode.base import Generation, check_request
from soaes.decode.sampling import greedy, sample, warp
from soaes.pipeline.validation import check


class Autoregressive:
    """target: an Engine; temperature 0 is greedy; eos: the token that ends a text (it is part of the output)."""

    n = 0

    def __init__(self, target, temperature: float, top_p: float, eos: int):
        check(temperature=temperature, top_p=top_p)
        self.target, self.temperature, self.top_p, self.eos = target, temperature, top_p, eos
        self.engines = (target,)

    @torch.inference_mode()
    def generate(
        self, prompt_ids: list[int], max_new_tokens: int, generator: torch.Generator
    ) -> Generation:
        """Decode until eos or max_new_tokens; the prompt and the first token are one forward."""
        check_request(prompt_ids, max_new_tokens)
        self.target.begin(len(prompt_ids) + max_new_tokens)
        out, sequence = Generation(), list(prompt_ids)
        while len(out.tokens) < max_new_tokens and self.eos not in out.tokens[-1:]:
            sequence.append(self.step(sequence, generator))
            out.tokens.append(sequence[-1])
            out.steps += 1
        return out

    def step(self, sequence: list[int], generator: torch.Generator) -> int:
        """The next token of a sequence, whose last tokens may be missing from the cache."""
        return next_token(self.target, sequence, self.temperature, self.top_p, generator)[0]


def next_token(engine, sequence, temperature, top_p, generator) -> tuple[int, torch.Tensor | None]:
    """Read what the cache misses, choose a token; with it its distribution_V, which greedy decoding does not need."""
    logits_1V = engine.forward(
        torch.tensor(sequence[engine.length :], device=engine.device), tail=1
    )
    if temperature == 0:
        return greedy(logits_1V)[0], None
    probabilities_V = warp(logits_1V[0], temperature, top_p)
    return sample(probabilities_V, generator), probabilities_V
