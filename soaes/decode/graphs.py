"""The engine with steps of one shape, which a GPU runs as CUDA graphs.

A step of a small batch launches some twenty kernels a layer, and launching them takes longer than
they run. A CUDA graph launches all of a step at once, but fixes its shapes and addresses. So the
step reads the whole cache under a mask, and takes its ids and places from buffers. A CPU has
nothing to gain and runs the same step directly, which shows that it is the engine's. Knows shapes
and graphs: not sampling, not drafts.

# T tokens of a step, L tokens that the cache has room for, V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from transformers import PreTrainedModel

from soaes.decode.engine import BLOCK, Engine, Forward, Window

WIDTHS = range(1, BLOCK.stop)  # tokens of a step that is captured; longer texts are prompts
WARMUP = 3  # runs of a step before it is captured, in which libraries choose their kernels


class GraphedEngine(Engine):
    """An `Engine` whose steps of 1 to 8 tokens after a prompt are captured at their first use.

    A step reads room for all tokens of the cache, not only those that are there: room for 512
    tokens is .2 % of what a 7B model reads in a step, room for 32,768 is an eighth.

    Args:
        model: The model.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self.steps: dict[int, Step] = {}

    def beside(self) -> Engine:
        """Refuse a second sequence: a graph fixes how many tokens each has."""
        raise ValueError(
            "batch: steps that are recorded as CUDA graphs read one sequence; set batch=1, or take "
            "soaes.decode.engine.Engine"
        )

    @torch.inference_mode()
    def forward_together(self, forwards: Sequence[Forward]) -> Sequence[torch.Tensor]:
        """Append T tokens to the cache; of one sequence alone, see `beside`."""
        [(_, ids_T, tail)] = forwards
        count = len(ids_T)
        if self.length == 0 or count not in WIDTHS:
            return super().forward_together(forwards)
        end = self.length + count
        assert end <= self.capacity, (
            f"{end} tokens in a cache for {self.capacity}: begin() reserves them"
        )
        if count not in self.steps:
            self.steps[count] = Step(partial(self._static_forward, count), count, self.device)
        logits_TV = self.steps[count](ids_T, self.length)
        self.length = end
        return [logits_TV[count - tail :]]

    def _static_forward(
        self, count: int, ids_T: torch.Tensor, places_T: torch.Tensor
    ) -> torch.Tensor:
        """The forward of `count` tokens whose shapes do not depend on where they stand."""
        columns_L = torch.arange(self.capacity, device=self.device)
        mask_TL = torch.zeros(count, self.capacity, device=self.device, dtype=self.dtype)
        mask_TL.masked_fill_(columns_L > places_T[:, None], float("-inf"))
        window = Window(
            num_tokens=count,
            cache=self.cache,
            cos_T1D=self.cos_L1D.index_select(0, places_T),
            sin_T1D=self.sin_L1D.index_select(0, places_T),
            mask_TL=mask_TL,
            places=places_T,
            end=self.capacity,
        )
        return self._run(ids_T, [window], [count])[0]

    def _allocate(self, capacity: int) -> None:
        """Make buffers, and forget the steps that were captured over the former ones."""
        self.steps = {}
        super()._allocate(capacity)


class Step:
    """A function of ids and places with buffers for both; on a GPU captured at its first call.

    Args:
        function: (ids_T, places_T) -> logits_TV.
        count: T.
        device: Where it runs.
    """

    def __init__(
        self,
        function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        count: int,
        device: torch.device,
    ) -> None:
        self.function = function
        self.ids_T = torch.zeros(count, dtype=torch.long, device=device)
        self.places_T = torch.zeros(count, dtype=torch.long, device=device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.logits_TV: torch.Tensor | None = None  # the graph writes it

    def __call__(self, ids_T: torch.Tensor, start: int) -> torch.Tensor:
        """Return the logits_TV of tokens that stand at `start` and after it."""
        self.ids_T.copy_(ids_T)
        torch.arange(start, start + len(ids_T), out=self.places_T)
        if self.ids_T.device.type != "cuda":
            return self.function(self.ids_T, self.places_T)
        if self.graph is None:
            self._capture()
        assert self.graph is not None and self.logits_TV is not None
        self.graph.replay()
        return self.logits_TV.clone()  # the next replay overwrites it

    def _capture(self) -> None:
        """Record the function; its runs before write what the first replay writes again."""
        device = self.ids_T.device
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(WARMUP):
                self.function(self.ids_T, self.places_T)
        torch.cuda.current_stream(device).wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.logits_TV = self.function(self.ids_T, self.places_T)
