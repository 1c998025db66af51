"""The acceptance oracle: keep what the target says and how likely it was, once; then judge any draft without running the target again.

`signal` holds the target's own outputs and, for every token of them, its warped distribution in sparse form: the tokens of its nucleus
and their probabilities. That is exact for every draft, at 4 bytes a token and 8 more for each token of the nucleus: 12 under greedy
decoding, some 20 at top-p .7, where the hidden state would be 4 H (768 at H = 192) and the head besides. At top-p 1 the nucleus is the
whole vocabulary, 8 V bytes a token. `predict` reads each text with the draft in one forward; the formulas stand in metrics.oracle.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from soaes import limits
from soaes.backends import native
from soaes.data.jsonl import read_jsonl, write_jsonl
from soaes.decode.autoregressive import next_token
from soaes.decode.distributions import warp
from soaes.decode.engine import Engine
from soaes.execution import Execution
from soaes.metrics import acceptance as rates
from soaes.metrics import oracle
from soaes.stages import acceptance
from soaes.stages.teach import tokenizer_digest

# T tokens of one text, V vocabulary, S entries of T nuclei one after another


class Nuclei(NamedTuple):
    """The target's distributions: token t of a text has sizes_T[t] entries, each a token of ids_S with its probability p_S."""

    sizes_T: np.ndarray
    ids_S: np.ndarray
    p_S: np.ndarray


def signal(
    target: Path,
    documents: Path,
    *,
    sampling: dict[str, float],
    prompts: dict[str, int],
    max_new_tokens: dict[str, int],
    seed: int,
    dtype: str,
    out: Path,
    split: str = "dev",
    execution: Execution = Execution(),
) -> None:
    """Let the target answer the first questions of each task of a split; write its tokens and, for each, the distribution it was drawn from.

    sampling: temperature and top_p; prompts, max_new_tokens: by task (qa, report), as `acceptance` takes them.
    """
    limits.check(split=split)
    torch.set_num_threads(execution.threads)
    tokenizer, eos = acceptance.chat_tokenizer(target)
    engine = _engine(target, dtype, execution)
    asked = acceptance.questions(documents, tokenizer, prompts, max_new_tokens, engine.positions, split)
    said = [_say(engine, question, eos, sampling, torch.Generator().manual_seed(seed + at)) for at, question in enumerate(asked)]
    texts = [{"id": question["id"], "task": question["task"], "prompt": question["messages"][-2]["content"], "most": question["most"],
              "prompt_ids": question["ids"], "tokens": tokens} for question, (tokens, _) in zip(asked, said, strict=True)]
    nuclei = Nuclei(*(np.concatenate(parts) for parts in zip(*(of_text for _, of_text in said), strict=True)))
    contract = {"sampling": dict(sampling), "dtype": dtype, "tokenizer": tokenizer_digest(target), "vocabulary": engine.vocab}
    _write(out, contract, texts, nuclei)


def predict(signal: Path, draft: Path, *, up_to: int, out: Path, execution: Execution = Execution()) -> None:
    """What `draft` would gain on the texts of a signal at n = 1 .. up_to: one forward of the draft a text; write metrics and a line a prompt.

    Sampling and dtype are the signal's."""
    limits.check(n=up_to)
    n = list(range(1, up_to + 1))
    torch.set_num_threads(execution.threads)
    contract = json.loads((signal / "contract.json").read_text(encoding="utf-8"))
    engine = _engine(draft, contract["dtype"], execution)
    _agree(contract, signal, draft, engine)
    texts, nuclei = read_jsonl(signal / "texts.jsonl"), Nuclei(**np.load(signal / "nuclei.npz"))
    of_texts = _by_text(nuclei, [len(text["tokens"]) for text in texts])
    lines = [_line(text, *judge(engine, text, one, contract["sampling"]), n) for text, one in zip(texts, of_texts, strict=True)]
    acceptance.write(out, acceptance.by_task(lambda some: _metrics(some, n), lines) | {"prompts": len(lines)}, lines)


@torch.inference_mode()
def judge(engine: Engine, text: dict, nuclei: Nuclei, sampling: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """(r_T, overlap_T) of one text: min(1, q/p) of its own tokens, and sum min(p, q), at every position.

    Exact but for rounding: the draft reads the text at once, in decoding token by token.
    """
    tokens_T = torch.tensor(text["tokens"])
    ids = text["prompt_ids"] + text["tokens"][:-1]
    engine.begin(len(ids))
    logits_TV = engine.forward(torch.tensor(ids, device=engine.device), tail=len(tokens_T))
    q_TV = warp(logits_TV, **sampling).double().cpu().numpy()
    rows_S = np.repeat(np.arange(len(tokens_T)), nuclei.sizes_T)
    q_S, p_S = q_TV[rows_S, nuclei.ids_S], nuclei.p_S.astype(np.float64)
    said_S = nuclei.ids_S == tokens_T.numpy()[rows_S]  # once a row: a token is drawn from its nucleus
    return np.minimum(1, q_S[said_S] / p_S[said_S]), np.bincount(rows_S, np.minimum(p_S, q_S), len(tokens_T))


@torch.inference_mode()
def _say(engine: Engine, question: dict, eos: int, sampling: dict[str, float], generator: torch.Generator) -> tuple[list[int], Nuclei]:
    """An answer as Autoregressive gives it, with what each token was drawn from."""
    tokens, sizes, ids, chances = [], [], [], []
    engine.begin(len(question["ids"]) + question["most"])
    while len(tokens) < question["most"] and eos not in tokens[-1:]:
        token, p_V = next_token(engine, question["ids"] + tokens, **sampling, generator=generator)
        kept = torch.tensor([token]) if p_V is None else p_V.nonzero()[:, 0].cpu()  # None: greedy, all mass on one token
        tokens.append(token)
        sizes.append(len(kept))
        ids.append(kept.numpy())
        chances.append(np.ones(1) if p_V is None else p_V.cpu()[kept].numpy())
    return tokens, Nuclei(np.array(sizes, np.int32), np.concatenate(ids).astype(np.int32), np.concatenate(chances).astype(np.float32))


def _engine(folder: Path, dtype: str, execution: Execution) -> Engine:
    return Engine(native.load(folder, dtype, execution.device))


def _write(out: Path, contract: dict, texts: list[dict], nuclei: Nuclei) -> None:
    tokens, stored = len(nuclei.sizes_T), sum(array.nbytes for array in nuclei)
    metrics = {"prompts": len(texts), "new_tokens_mean": tokens / len(texts), "nucleus_mean": len(nuclei.ids_S) / tokens,
               "bytes_per_token": stored / tokens}
    write_jsonl(out / "texts.jsonl", texts)
    np.savez(out / "nuclei.npz", **nuclei._asdict())
    (out / "contract.json").write_text(json.dumps(contract), encoding="utf-8")
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1), encoding="utf-8")


def _agree(contract: dict, signal: Path, draft: Path, engine: Engine) -> None:
    """A signal speaks of token ids: the draft's must mean the same."""
    if (found := tokenizer_digest(draft)) != contract["tokenizer"]:
        raise ValueError(f"{signal} was written with tokenizer {contract['tokenizer']}, draft {draft} has {found}; train both with one")
    if engine.vocab != contract["vocabulary"]:
        raise ValueError(f"draft {draft} has a vocabulary of {engine.vocab:,}, the target of {signal} one of {contract['vocabulary']:,}; "
                         "take a draft with as many rows")


def _by_text(nuclei: Nuclei, lengths: list[int]) -> list[Nuclei]:
    ends = np.cumsum(lengths)[:-1]
    of_entries = np.cumsum(nuclei.sizes_T)[ends - 1]
    return [Nuclei(*parts) for parts in zip(np.split(nuclei.sizes_T, ends), np.split(nuclei.ids_S, of_entries), np.split(nuclei.p_S, of_entries))]


def _line(text: dict, r_T: np.ndarray, overlap_T: np.ndarray, n: list[int]) -> dict:
    """One prompt's line of predictions.jsonl: the expectations by n."""
    found = {one: oracle.expected(r_T, one, text["most"]) for one in n}
    return {
        **{name: text[name] for name in ("id", "task", "prompt")},
        "new_tokens": len(r_T),
        "overlap": float(overlap_T.sum()),
        **{f"expected_{name}": {one: getattr(found[one], name) for one in n} for name in oracle.Expected._fields},
    }


def _metrics(lines: list[dict], n: list[int]) -> dict:
    """Of the texts, with each token counted once: the overlap in per cent. `acceptance` measures it over the drafted positions, which are
    others: no bonus, and what follows a rejected token. Of the blocks at each n: tokens a step, accepted and at most drafted tokens."""
    tokens = sum(line["new_tokens"] for line in lines)
    found = {"overlap_on_text": rates.mean_overlap(sum(line["overlap"] for line in lines), tokens), "new_tokens_mean": tokens / len(lines)}
    for one in n:
        steps, accepted, drafted = (sum(line[f"expected_{name}"][one] for line in lines) for name in ("steps", "accepted", "drafted"))
        found |= {f"tokens_per_step_n{one}": rates.tokens_per_step(tokens, steps), f"accepted_per_block_n{one}": accepted / steps,
                  f"drafted_per_block_n{one}": drafted / steps}
    return found
