"""Accept: how many drafted tokens a target takes, prompt by prompt, without a clock. Also what this shares with `speed`.

Counts are the same on every machine, so these stages run side by side and in every seed; a speed is one machine's.
"""

import json
import statistics
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer

from soaes import limits
from soaes.backends import native
from soaes.backends.pair import Told, folders
from soaes.data import chat
from soaes.data.jsonl import read_jsonl, write_jsonl
from soaes.decode.generation import Generation
from soaes.decode.verify import bound, named
from soaes.execution import Execution
from soaes.metrics import acceptance as rates
from soaes.metrics import oracle, rouge


def acceptance(
    target: Path,
    documents: Path,
    *,
    decode: partial,
    sampling: dict[str, float],
    prompts: dict[str, int],
    max_new_tokens: dict[str, int],
    seed: int,
    dtype: str,
    out: Path,
    draft: Path | None = None,
    prediction: Path | None = None,
    execution: Execution = Execution(),
) -> None:
    """Decode the first test questions of each task by `decode`; write acceptance by its readings, and predictions.

    decode: a decoder's class with its own settings bound; prompts, max_new_tokens: by task (qa, report); prediction: what the oracle says
    of this draft, to stand beside.
    """
    tokenizer, eos = chat_tokenizer(target)
    models = folders(target, draft, decode)
    with native.open(decode, models, eos=eos, sampling=sampling, dtype=dtype, device=execution.device, threads=execution.threads) as pair:
        asked = questions(documents, tokenizer, prompts, max_new_tokens, pair.positions - pair.n - 1)
        made = [
            pair.method.generate(question["ids"], question["most"], torch.Generator().manual_seed(seed + index))
            for index, question in enumerate(asked)
        ]
    predictions = [record(tokenizer, eos, *both) for both in zip(asked, made, strict=True)]
    scores = {"rouge1": statistics.mean(rouge.score(item["prediction"], item["reference"])["rouge1"] for item in predictions)}
    told = {"n": pair.n, "prompts": len(asked), "rule": named(bound(decode))}
    write(out, {**by_task(counts, predictions), **told, **scores, **foretold(prediction, pair.n)}, predictions)


def foretold(prediction: Path | None, n: int, costs: dict | None = None) -> dict[str, float]:
    """What the oracle said from other prompts, without the target: tokens a step and, with costs, the speedup of decoding alone."""
    if prediction is None:
        return {}
    told = json.loads((prediction / "metrics.json").read_text(encoding="utf-8"))
    if f"tokens_per_step_n{n}" not in told:
        raise ValueError(f"{prediction} has no prediction for n={n}; set predict.up_to={n}")
    tokens, drafted = told[f"tokens_per_step_n{n}"], told[f"drafted_per_block_n{n}"]
    found = {"oracle_tokens_per_step": tokens}
    if costs is None or costs["draft_cost"] is None:
        return found
    return found | {"oracle_speedup": oracle.speedup(tokens, 1, drafted, costs["draft_cost"], costs["verify_cost"])}


def chat_tokenizer(target: Path) -> tuple[Tokenizer, int]:
    """The tokenizer of a model's folder, and the token that ends an answer."""
    tokenizer = Tokenizer.from_file(str(target / "tokenizer.json"))
    if tokenizer.token_to_id(chat.END) is None:
        raise ValueError(f"the tokenizer of {target} has no {chat.END}, where an answer ends; use a chat tokenizer")
    return tokenizer, tokenizer.token_to_id(chat.END)


def questions(documents: Path, tokenizer: Tokenizer, prompts: dict[str, int], max_new_tokens: dict[str, int], positions: int,
              split: str = "test") -> list[dict]:  # fmt: skip
    """The first samples of each task of a split that fit into `positions` together with their answer, with the prompt's ids.

    A task that the split does not have is left out; of one that it has, every prompt asked for must be there."""
    samples, found = read_jsonl(documents / "qa" / f"{split}.jsonl"), []
    for task, wanted in prompts.items():
        limits.check(prompts=wanted)
        room = positions - max_new_tokens[task]
        of_task = [sample for sample in samples if sample["task"] == task]
        asked = (sample | {"ids": chat.prompt(tokenizer, sample["messages"][:-1]), "most": max_new_tokens[task]} for sample in of_task)
        fitting = list(islice((sample for sample in asked if len(sample["ids"]) <= room), wanted))
        if len(fitting) < wanted and of_task:
            raise ValueError(f"{len(fitting)} of {len(of_task)} {task} prompts of the {split} split fit {room} positions, prompts.{task}={wanted} "
                             "asks for more; lower it, lower max_new_tokens, or set a larger context")
        found += fitting
    if not found:
        raise ValueError(f"none of {len(samples)} {split} samples is of the tasks {', '.join(prompts)}; name the tasks that the data has in prompts")
    return found


def record(tokenizer: Tokenizer, eos: int, question: dict, ours: Generation) -> dict:
    """One prompt's line of predictions.jsonl."""
    return {
        "id": question["id"],
        "task": question["task"],
        "prompt": question["messages"][-2]["content"],
        "reference": question["messages"][-1]["content"],
        "prediction": text(tokenizer, eos, ours),
        "new_tokens": len(ours.tokens),
        "steps": ours.steps,
        "drafted": ours.drafted,
        "accepted": ours.accepted,
        "overlap": ours.overlap,
        "tests_per_position": ours.tests_per_position,
        "accepts_per_position": ours.accepts_per_position,
    } | ({"prefixes_per_position": ours.prefixes_per_position} if isinstance(ours, Told) else {})


def text(tokenizer: Tokenizer, eos: int, made: Generation) -> str:
    return tokenizer.decode([token for token in made.tokens if token != eos])


def counts(predictions: list[dict]) -> dict:
    """Decision 13: both readings of the acceptance rate, in per cent, and the overlap, which is the least noisy. None: not told."""
    tests, accepts = (_columns(predictions, f"{name}_per_position") for name in ("tests", "accepts"))
    tokens, steps, accepted, drafted = (sum(item[name] for item in predictions) for name in ("new_tokens", "steps", "accepted", "drafted"))
    overlaps = [item["overlap"] for item in predictions]
    return {
        "acceptance_rate": rates.per_position_rate(accepts, tests),
        "accepted_over_drafted": rates.accepted_over_drafted(accepted, drafted),
        "overlap": None if None in overlaps else rates.mean_overlap(sum(overlaps), drafted),
        "tokens_per_step": rates.tokens_per_step(tokens, steps),
        "new_tokens_mean": tokens / len(predictions),
        "tests_per_position": tests,
        "accepts_per_position": accepts,
    }


def _columns(predictions: list[dict], name: str) -> list[int]:
    """Sums by position over the prompts; empty where a backend does not tell."""
    return [sum(column) for column in zip(*(item[name] for item in predictions), strict=True)]


def by_task(measure, predictions: list[dict]) -> dict:
    """The metrics of all predictions, and of each task under its name, e.g. report_speedup."""
    found = measure(predictions)
    for task in sorted({item["task"] for item in predictions}):
        found |= {f"{task}_{name}": value for name, value in measure([item for item in predictions if item["task"] == task]).items()}
    return found


def write(out: Path, metrics: dict, predictions: list[dict]) -> None:
    write_jsonl(out / "predictions.jsonl", predictions)
    (out / "metrics.json").write_text(json.dumps(metrics, ensure_ascii=False, indent=1), encoding="utf-8")
