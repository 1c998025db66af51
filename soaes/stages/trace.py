"""Stages that predict acceptance: the target writes texts once, and any draft is judged on them.

`target_trace` stores the target's answers with the distribution that each token was drawn from;
`predict_acceptance` runs a draft over them, one forward a text, and computes what it would gain at
every n without running the target again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from soaes.data import chat
from soaes.data.chat import tokenizer_digest
from soaes.data.jsonl import read_jsonl, write_jsonl
from soaes.decode.autoregressive import next_token
from soaes.decode.backends import native
from soaes.decode.batch import run
from soaes.decode.engine import Engine
from soaes.decode.prompts import Prompt, select_prompts
from soaes.decode.sampling import warp
from soaes.decode.settings import SamplingSettings
from soaes.metrics.acceptance import Metrics, Prediction, by_task
from soaes.metrics.expected_acceptance import Expected, expected
from soaes.metrics.schema import write_metrics, write_predictions
from soaes.model.vocabulary import pad_draft
from soaes.pipeline.runtime import Execution
from soaes.pipeline.validation import SPLITS, check_one_of, check_whole

# T tokens of one text, S entries of distributions, V vocabulary

TEXTS, NUCLEI, CONTRACT = "texts.jsonl", "nuclei.npz", "contract.json"


class Nuclei(NamedTuple):
    """The target's distributions: token t has sizes_T[t] entries, which follow each other in S."""

    sizes_T: np.ndarray  # int32
    ids_S: np.ndarray  # int32: token ids
    p_S: np.ndarray  # float32: their probabilities


@dataclass(frozen=True)
class TracedText:
    """A line of texts.jsonl: one prompt and the target's answer."""

    id: str  # the sample's id within its split
    task: str  # qa or report
    prompt: str  # the last user turn
    max_new_tokens: int  # limit of the answer
    prompt_ids: list[int]
    tokens: list[int]  # of the answer, a final eos included


@dataclass(frozen=True)
class TraceContract:
    """contract.json: what a draft must share with the trace that it is judged on."""

    sampling: SamplingSettings
    dtype: str  # of the target, and so of the draft
    tokenizer: str  # digest, see soaes.data.chat.tokenizer_digest
    vocabulary: int  # rows of the target's output layer

    @classmethod
    def read(cls, trace: Path) -> TraceContract:
        """Read the contract of a trace's folder."""
        record = json.loads((trace / CONTRACT).read_text(encoding="utf-8"))
        return cls(**(record | {"sampling": SamplingSettings(**record["sampling"])}))

    def write(self, out: Path) -> None:
        """Write the contract into a folder."""
        (out / CONTRACT).write_text(json.dumps(asdict(self)), encoding="utf-8")

    def check_draft(self, trace: Path, draft: Path) -> None:
        """Check that a draft's token ids mean what the trace's mean.

        Args:
            trace: Folder of the trace, for messages.
            draft: Folder of the draft.

        Raises:
            ValueError: The tokenizers differ.
        """
        digest = tokenizer_digest(draft)
        if digest != self.tokenizer:
            raise ValueError(
                f"{trace} was written with tokenizer {self.tokenizer}, draft {draft} has {digest}; "
                "train both with one"
            )


# ---------------------------------------------------------------- the target's texts


def target_trace(
    target: Path,
    documents: Path,
    *,
    sampling: SamplingSettings,
    prompts: dict[str, int],
    max_new_tokens: dict[str, int],
    seed: int,
    dtype: str,
    out: Path,
    split: str = "dev",
    sample_seed: int = 0,
    execution: Execution = Execution(),
) -> None:
    """Let the target answer questions of each task of a split.

    Writes its tokens and the distribution that each was drawn from.

    Args:
        target: Folder of the target model.
        documents: Folder with qa/SPLIT.jsonl.
        sampling: Temperature and top-p.
        prompts: Task (qa, report) -> prompts to answer.
        max_new_tokens: Task -> tokens of an answer at most.
        seed: Prompt i draws from seed + i.
        dtype: float32, bfloat16 or float16.
        out: The stage's folder.
        split: train, dev or test.
        sample_seed: Draws the questions. It is not the run's seed, so that all runs ask the same.
        execution: Device and threads.

    Raises:
        ValueError: `split` is unknown, or there are too few prompts that fit.
    """
    check_one_of("split", split, SPLITS)
    tokenizer, eos = chat.chat_tokenizer(target)
    engine = Engine(native.load(target, dtype, execution.device))
    selected, num_skipped = select_prompts(
        documents, tokenizer, prompts, max_new_tokens, engine.positions, split, sample_seed
    )
    texts = []
    nuclei_of_texts = []
    for index, prompt in enumerate(selected):
        generator = torch.Generator().manual_seed(seed + index)
        tokens, nuclei = _answer(engine, prompt, eos, sampling, generator)
        texts.append(
            TracedText(
                prompt.id, prompt.task, prompt.question, prompt.max_new_tokens, prompt.ids, tokens
            )
        )
        nuclei_of_texts.append(nuclei)
    contract = TraceContract(sampling, dtype, tokenizer_digest(target), engine.vocab)
    counts = {
        "num_cut": sum(eos not in text.tokens for text in texts),
        "num_skipped": num_skipped,
    }
    _write_trace(out, contract, texts, _concatenate(nuclei_of_texts), counts)


@torch.inference_mode()
def _answer(
    engine: Engine, prompt: Prompt, eos: int, sampling: SamplingSettings, generator: torch.Generator
) -> tuple[list[int], Nuclei]:
    """An answer as Autoregressive gives it, with what each token was drawn from."""
    tokens: list[int] = []
    ids: list[np.ndarray] = []
    probs: list[np.ndarray] = []
    engine.begin(len(prompt.ids) + prompt.max_new_tokens)
    while len(tokens) < prompt.max_new_tokens and eos not in tokens[-1:]:
        sequence = prompt.ids + tokens
        step = next_token(engine, sequence, sampling.temperature, sampling.top_p, generator)
        token, p_V = run(step)
        tokens.append(token)
        if p_V is None:  # greedy: all mass on one token
            ids.append(np.array([token]))
            probs.append(np.ones(1))
        else:
            support = p_V.nonzero()[:, 0].cpu()
            ids.append(support.numpy())
            probs.append(p_V.cpu()[support].numpy())
    sizes_T = np.array([len(entries) for entries in ids], np.int32)
    ids_S = np.concatenate(ids).astype(np.int32)
    return tokens, Nuclei(sizes_T, ids_S, np.concatenate(probs).astype(np.float32))


def _concatenate(nuclei_of_texts: list[Nuclei]) -> Nuclei:
    """The distributions of several texts as one record."""
    return Nuclei(*(np.concatenate(parts) for parts in zip(*nuclei_of_texts, strict=True)))


def _write_trace(
    out: Path,
    contract: TraceContract,
    texts: list[TracedText],
    nuclei: Nuclei,
    counts: dict[str, int],
) -> None:
    """Write the trace's four files; the counts are metrics of it."""
    tokens = len(nuclei.sizes_T)
    stored = sum(array.nbytes for array in nuclei)
    write_jsonl(out / TEXTS, map(asdict, texts))
    np.savez(out / NUCLEI, **nuclei._asdict())
    contract.write(out)
    metrics = {
        "prompts": len(texts),
        "new_tokens_mean": tokens / len(texts),
        "nucleus_mean": len(nuclei.ids_S) / tokens,
        "bytes_per_token": stored / tokens,
        **counts,
    }
    write_metrics(out, metrics)


# ---------------------------------------------------------------- a draft, judged on them


def predict_acceptance(
    target_trace: Path, draft: Path, *, max_n: int, out: Path, execution: Execution = Execution()
) -> None:
    """Predict what a draft would gain on the texts of a trace, at n = 1 .. max_n.

    One forward of the draft a text, with the trace's sampling and dtype. Writes metrics and a
    line a prompt.

    Args:
        target_trace: Folder of the trace.
        draft: Folder of the draft model.
        max_n: Drafted tokens in a block at most, at least 1.
        out: The stage's folder.
        execution: Device and threads.

    Raises:
        ValueError: `max_n` is below 1, the draft's token ids mean something else, or it has more
            vocabulary rows than the target.
    """
    check_whole("max_n", max_n, 1, "drafted tokens in a block")
    lengths = list(range(1, max_n + 1))
    contract = TraceContract.read(target_trace)
    contract.check_draft(target_trace, draft)
    network = native.load(draft, contract.dtype, execution.device)
    pad_draft(network, draft, contract.vocabulary)
    engine = Engine(network)
    texts = [TracedText(**record) for record in read_jsonl(target_trace / TEXTS)]
    nuclei = Nuclei(**np.load(target_trace / NUCLEI))
    nuclei_of_texts = _split(nuclei, [len(text.tokens) for text in texts])
    rows = []
    for text, text_nuclei in zip(texts, nuclei_of_texts, strict=True):
        r_T, overlap_T = judge(engine, text, text_nuclei, contract.sampling)
        rows.append(_prediction_row(text, r_T, overlap_T, lengths))

    def metrics_of(some: Sequence[Prediction]) -> Metrics:
        return _metrics(some, lengths)

    write_predictions(out, rows)
    write_metrics(out, by_task(metrics_of, rows) | {"prompts": len(rows)})


@torch.inference_mode()
def judge(
    engine: Engine, text: TracedText, nuclei: Nuclei, sampling: SamplingSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Compare a draft with the target over one text.

    Exact but for rounding: the draft reads the text at once here, and token by token in decoding.

    Args:
        engine: The draft.
        text: A text of the target.
        nuclei: Its distributions.
        sampling: Temperature and top-p of both.

    Returns:
        r_T, min(1, q/p) of the text's own tokens, and overlap_T, sum min(p, q), at every position.
    """
    tokens_T = torch.tensor(text.tokens)
    ids = text.prompt_ids + text.tokens[:-1]
    engine.begin(len(ids))
    logits_TV = engine.forward(torch.tensor(ids, device=engine.device), tail=len(tokens_T))
    q_TV = warp(logits_TV, sampling.temperature, sampling.top_p).double().cpu().numpy()
    rows_S = np.repeat(np.arange(len(tokens_T)), nuclei.sizes_T)
    q_S = q_TV[rows_S, nuclei.ids_S]
    p_S = nuclei.p_S.astype(np.float64)
    emitted_S = nuclei.ids_S == tokens_T.numpy()[rows_S]  # once a row: drawn from its nucleus
    r_T = np.minimum(1, q_S[emitted_S] / p_S[emitted_S])
    overlap_T = np.bincount(rows_S, np.minimum(p_S, q_S), len(tokens_T))
    return r_T, overlap_T


def _split(nuclei: Nuclei, lengths: list[int]) -> list[Nuclei]:
    """The distributions of each text; lengths: tokens of the texts."""
    text_ends = np.cumsum(lengths)[:-1]
    entry_ends = np.cumsum(nuclei.sizes_T)[text_ends - 1]
    sizes = np.split(nuclei.sizes_T, text_ends)
    ids = np.split(nuclei.ids_S, entry_ends)
    probs = np.split(nuclei.p_S, entry_ends)
    return [Nuclei(*parts) for parts in zip(sizes, ids, probs)]


def _prediction_row(
    text: TracedText, r_T: np.ndarray, overlap_T: np.ndarray, lengths: list[int]
) -> dict[str, Any]:
    """One prompt's line of predictions.jsonl: the expectations by n."""
    row: dict[str, Any] = {
        "id": text.id,
        "task": text.task,
        "prompt": text.prompt,
        "new_tokens": len(r_T),
        "overlap": float(overlap_T.sum()),
    }
    by_n = {n: expected(r_T, n, text.max_new_tokens) for n in lengths}
    for name in Expected._fields:
        row[f"expected_{name}"] = {n: getattr(by_n[n], name) for n in lengths}
    return row


def _metrics(rows: Sequence[Prediction], lengths: list[int]) -> Metrics:
    """Overlap of the texts, with each token counted once, and the expected blocks at each n.

    `acceptance` measures the overlap over drafted positions, which are others: no bonus tokens,
    but also what follows a rejected token.
    """
    tokens = sum(row["new_tokens"] for row in rows)
    overlap = sum(row["overlap"] for row in rows)
    metrics: Metrics = {
        "overlap_on_text": 100 * overlap / tokens if tokens else None,
        "new_tokens_mean": tokens / len(rows),
    }
    for n in lengths:
        steps = sum(row["expected_steps"][n] for row in rows)
        accepted = sum(row["expected_accepted"][n] for row in rows)
        drafted = sum(row["expected_drafted"][n] for row in rows)
        metrics[f"mean_acceptance_length_n{n}"] = tokens / steps
        metrics[f"accepted_per_block_n{n}"] = accepted / steps
        metrics[f"drafted_per_block_n{n}"] = drafted / steps
    return metrics
