"""A local model that writes questions, by transformers and one prompt after another.

See `soaes.data.synthesis.calls.Author`. Its name in a call is that of its folder in the store, so
another model never reads its answers.
"""

from __future__ import annotations

import threading
from pathlib import Path

from soaes.data.chat import prompt
from soaes.data.synthesis.calls import Reply, Request
from soaes.decode.backends.language_model import TransformersModel
from soaes.model.generate import finish
from soaes.pipeline.runtime import Execution


class LocalAuthor:
    """Answers requests greedily.

    Args:
        folder: Of the model.
        execution: The device.
    """

    def __init__(self, folder: Path, execution: Execution) -> None:
        self._model = TransformersModel(folder, execution)
        self._lock = threading.Lock()  # one model, asked from several threads

    def answer(self, request: Request) -> Reply:
        """Answer a request; one that does not fit the model's positions is refused."""
        ids = prompt(self._model.tokenizer, request.messages)
        max_new_tokens = int(request.parameters["max_new_tokens"])
        needed, positions = len(ids) + max_new_tokens, self._model.positions
        if needed > positions:
            reason = f"{needed:,} tokens, the model has {positions:,} positions"
            return Reply(reason, "refused: too long")
        with self._lock:
            (tokens,) = self._model.write([ids], max_new_tokens)
        answer = finish(self._model.tokenizer, tokens)
        finish_reason = "length" if answer.is_cut else "stop"
        return Reply(answer.text, finish_reason, len(ids), len(tokens))
