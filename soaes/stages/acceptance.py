"""Accept: how many drafted tokens a target takes, prompt by prompt, without a clock. Also what this shares with `speed`.

Counts are the same on every machine, so these stages run side by side and in every seed; a speed is one machine's.
"""

import inspect
import json
import statistics
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer

from soaes import limits
from soaes.data import chat
from soaes.data.jsonl import read_jsonl, write_jsonl
from soaes.decode.engine import Engine
from soaes.decode.generation import Generation
from soaes.execution import Execution
from soaes.metrics import acceptance as rates
from soaes.metrics import rouge
from soaes.model import checkpoint

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
    execution: Execution = Execution(),
) -> None:
    """Decode the first test questions of each task by `decode`; write acceptance by its readings, and predictions.

    decode: a decoder's class with its own settings bound; prompts, max_new_tokens: by task (qa, report).
    """
    torch.set_num_threads(execution.threads)
    engines, tokenizer = load(target, draft, decode, dtype, execution.device)
    eos = tokenizer.token_to_id(chat.END)
    method = decode(**engines, eos=eos, **sampling)
    asked = questions(documents, tokenizer, prompts, max_new_tokens, method)
    made = [method.generate(question["ids"], question["most"], torch.Generator().manual_seed(seed + index)) for index, question in enumerate(asked)]
    predictions = [record(tokenizer, eos, *pair) for pair in zip(asked, made, strict=True)]
    scores = {"rouge1": statistics.mean(rouge.score(item["prediction"], item["reference"])["rouge1"] for item in predictions)}
    write(out, {**by_task(counts, predictions), "n": method.n, "prompts": len(asked), **scores}, predictions)


def load(target: Path, draft: Path | None, decode: partial, dtype: str, device: str) -> tuple[dict[str, Engine], Tokenizer]:
    """The models that the decoder takes, by its own argument names, and the target's tokenizer."""
    limits.check(dtype=dtype)
    folders = {"target": target}
    if "draft" in inspect.signature(decode.func).parameters:
        folders["draft"] = _checked(draft, target)
    tokenizers = [Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in folders.values()]
    if tokenizers[0].get_vocab() != tokenizers[-1].get_vocab():
        raise ValueError(f"draft {draft} and target {target} have different tokenizers; train both with one")
    if tokenizers[0].token_to_id(chat.END) is None:
        raise ValueError(f"the tokenizer of {target} has no {chat.END}, where an answer ends; use a chat tokenizer")
    models = {name: checkpoint.load(folder, DTYPES[dtype]).to(device).eval() for name, folder in folders.items()}
    return {name: Engine(model) for name, model in models.items()}, tokenizers[0]


def _checked(draft: Path | None, target: Path) -> Path:
    if draft is None:
        raise ValueError("this decoder needs a draft model and draft is null; name one, or set decode=prompt_lookup")
    if draft.resolve() == target.resolve():
        raise ValueError(f"draft and target are both {target}: nothing is gained; name a smaller model as draft")
    return draft


def questions(documents: Path, tokenizer: Tokenizer, prompts: dict[str, int], max_new_tokens: dict[str, int], method) -> list[dict]:
    """The first samples of each task of the test split whose prompt leaves room for the answer, with the prompt's ids.

    A task that the split does not have is left out; of one that it has, every prompt asked for must be there."""
    samples, found = read_jsonl(documents / "qa" / "test.jsonl"), []
    for task, wanted in prompts.items():
        limits.check(prompts=wanted)
        room = min(engine.positions for engine in method.engines) - max_new_tokens[task] - method.n - 1
        of_task = [sample for sample in samples if sample["task"] == task]
        asked = (sample | {"ids": chat.prompt(tokenizer, sample["messages"][:-1]), "most": max_new_tokens[task]} for sample in of_task)
        fitting = list(islice((sample for sample in asked if len(sample["ids"]) <= room), wanted))
        if len(fitting) < wanted and of_task:
            raise ValueError(f"{len(fitting)} of {len(of_task)} {task} prompts of the test split fit {room} positions, prompts.{task}={wanted} "
                             "asks for more; lower it, lower max_new_tokens, or set a larger context")
        found += fitting
    if not found:
        raise ValueError(f"none of {len(samples)} test samples is of the tasks {', '.join(prompts)}; name the tasks that the data has in prompts")
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
    }


def text(tokenizer: Tokenizer, eos: int, made: Generation) -> str:
    return tokenizer.decode([token for token in made.tokens if token != eos])


def counts(predictions: list[dict]) -> dict:
    """Decision 13: both readings of the acceptance rate, in per cent, and the overlap, which is the least noisy."""
    tests, accepts = (
        [sum(column) for column in zip(*(item[name] for item in predictions), strict=True)]
        for name in ("tests_per_position", "accepts_per_position")
    )
    tokens, steps, accepted, overlap = (sum(item[name] for item in predictions) for name in ("new_tokens", "steps", "accepted", "overlap"))
    return {
        "acceptance_rate": rates.per_position_rate(accepts, tests),
        "accepted_over_drafted": rates.accepted_over_drafted(accepted, sum(tests)),
        "overlap": rates.mean_overlap(overlap, sum(tests)),
        "tokens_per_step": rates.tokens_per_step(tokens, steps),
        "new_tokens_mean": tokens / len(predictions),
        "tests_per_position": tests,
        "accepts_per_position": accepts,
    }


def by_task(measure, predictions: list[dict]) -> dict:
    """The metrics of all predictions, and of each task under its name, e.g. report_speedup."""
    found = measure(predictions)
    for task in sorted({item["task"] for item in predictions}):
        found |= {f"{task}_{name}": value for name, value in measure([item for item in predictions if item["task"] == task]).items()}
    return found


def write(out: Path, metrics: dict, predictions: list[dict]) -> None:
    write_jsonl(out / "predictions.jsonl", predictions)
    (out / "metrics.json").write_text(json.dumps(metrics, ensure_ascii=False, indent=1), encoding="utf-8")
