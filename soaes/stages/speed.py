"""Measure: what a decoder gains over one token a step, prompt by prompt and in pairs, with the proof that it may count.

Knows folders, the clock and the decoders' call form; how a decoder works stands in soaes.decode.
"""

import inspect
import json
import statistics
import time
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer

from soaes import limits
from soaes.data import chat
from soaes.data.jsonl import read_jsonl, write_jsonl
from soaes.decode.autoregressive import Autoregressive
from soaes.decode.distributions import one_hot
from soaes.decode.engine import Engine
from soaes.decode.generation import Generation
from soaes.decode.speculative import verify
from soaes.metrics import acceptance, rouge
from soaes.model import checkpoint

COST_TURNS, COST_BLOCK = 20, 10  # a block repeats one action, so that its caches are as warm as in its own loop
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def speed(
    target: Path,
    documents: Path,
    *,
    decode: partial,
    sampling: dict[str, float],
    prompts: int,
    max_new_tokens: int,
    rounds: int,
    seed: int,
    threads: int,
    dtype: str,
    out: Path,
    draft: Path | None = None,
    device: str = "cpu",
    machine: str = "",
    backend: str = "",
    warmup: int = 1,
) -> None:
    """Decode the first test questions by `decode` and by autoregression, interleaved; write metrics and predictions.

    decode: a decoder's class with its own settings bound; sampling: temperature and top_p of both sides; warmup: rounds
    that are not counted; machine, backend: what was measured on, for the recipe.
    """
    limits.check(prompts=prompts, rounds=rounds, dtype=dtype)
    torch.set_num_threads(threads)
    engines, tokenizer = _engines(target, draft, decode, dtype, device)
    eos = tokenizer.token_to_id(chat.END)
    baseline = Autoregressive(engines["target"], eos=eos, **sampling)
    method = baseline if decode.func is Autoregressive else decode(**engines, eos=eos, **sampling)
    room = min(engine.positions for engine in engines.values()) - max_new_tokens - method.n - 1
    questions = _questions(documents, tokenizer, prompts, room)
    seconds, outputs = _rounds(baseline, method, questions, max_new_tokens, rounds, warmup, seed)
    greedy = sampling["temperature"] == 0
    if greedy:
        _prove(questions, outputs)
    costs = _costs(baseline, method, questions, outputs["autoregressive"], seed)
    triples = zip(questions, outputs["method"], outputs["autoregressive"])
    predictions = [_record(tokenizer, eos, *triple) for triple in triples]
    metrics = {
        **_speeds(seconds, outputs, rounds),
        **_acceptance(outputs["method"], method.n, costs),
        **_quality(predictions),
        "prompt_tokens_mean": statistics.mean(len(question["ids"]) for question in questions),
        "prompts": len(questions),
        "proof": "equal tokens" if greedy else "law",
        "machine": machine or device,
        "backend": backend,
    }
    write_jsonl(out / "predictions.jsonl", predictions)
    (out / "metrics.json").write_text(json.dumps(metrics, ensure_ascii=False, indent=1), encoding="utf-8")


def _engines(target: Path, draft: Path | None, decode: partial, dtype: str, device: str):
    """The models that the decoder takes, by its own argument names, and the target's tokenizer."""
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


def _questions(documents: Path, tokenizer: Tokenizer, prompts: int, room: int) -> list[dict]:
    """The first samples of the test split whose prompt leaves room for the answer, each with the ids of its prompt."""
    samples = read_jsonl(documents / "qa" / "test.jsonl")
    asked = (sample | {"ids": chat.prompt(tokenizer, sample["messages"][:-1])} for sample in samples)
    fitting = list(islice((sample for sample in asked if len(sample["ids"]) <= room), prompts))
    if len(fitting) < prompts:
        raise ValueError(f"{len(fitting)} of {len(samples)} test prompts fit {room} positions, speed.prompts={prompts} asks for more; "
                         "lower it, lower speed.max_new_tokens, or set a larger context")
    return fitting


def _rounds(baseline, method, questions, max_new_tokens, rounds, warmup, seed):
    """Seconds by name and round, and the outputs, which are the same in every round: each prompt has its own seed.

    The two decoders take turns on each prompt and swap who goes first, so that a slow minute slows both.
    """
    decoders = {"autoregressive": baseline} | ({} if method is baseline else {"method": method})
    seconds = {name: [] for name in decoders}
    outputs = {name: [None] * len(questions) for name in decoders}
    for round_ in range(-warmup, rounds):
        spent = dict.fromkeys(decoders, 0.0)
        for index, question in enumerate(questions):
            for name in list(decoders)[:: 1 if (round_ + index) % 2 else -1]:
                generate = partial(decoders[name].generate, question["ids"], max_new_tokens)
                took, outputs[name][index] = _timed(generate, seed + index, decoders[name].target.device)
                spent[name] += took
        if round_ >= 0:
            for name in decoders:
                seconds[name].append(spent[name])
    return {"method": seconds["autoregressive"], **seconds}, {"method": outputs["autoregressive"], **outputs}


def _timed(generate, seed: int, device) -> tuple[float, Generation]:
    generator = torch.Generator().manual_seed(seed)
    start = time.perf_counter()
    generation = generate(generator)  # ends with tokens as Python numbers: nothing is left to run on the device
    return time.perf_counter() - start, generation


def _prove(questions, outputs) -> None:
    """Greedy decoding has one right answer, so a row counts only where every token of it is the target's own."""
    for question, ours, theirs in zip(questions, outputs["method"], outputs["autoregressive"]):
        if ours.tokens != theirs.tokens:
            pairs = enumerate(zip(ours.tokens, theirs.tokens))
            shorter = min(len(ours.tokens), len(theirs.tokens))
            position = next((index for index, (left, right) in pairs if left != right), shorter)
            raise ValueError(
                f"row refused: prompt {question['id']} differs from autoregression at new token {position}; "
                "near ties flip in low precision: set dtype=float32"
            )


def _costs(baseline, method, questions, generations, seed) -> dict[str, float]:
    """Draft and verification cost in steps of the target, timed one by one at a middling prompt and half its answer."""
    if method is baseline:
        return {"draft_cost": 0.0, "verify_cost": 1.0}
    order = sorted(range(len(questions)), key=lambda index: len(questions[index]["ids"] + generations[index].tokens))
    middle = order[len(order) // 2]
    tokens = generations[middle].tokens
    sequence = (questions[middle]["ids"] + tokens[: (len(tokens) + 1) // 2])[: method.target.positions - method.n]
    drafted = (sequence * method.n)[-method.n :]  # what is verified does not matter to the clock, its width does
    return _medians(baseline, method, sequence, drafted, torch.Generator().manual_seed(seed))


def _medians(baseline, method, sequence, drafted, generator) -> dict[str, float]:
    target, known = method.target, len(sequence) - 1
    q_nV = one_hot(torch.tensor(drafted, device=target.device), target.vocab, torch.float32)
    actions = {
        "step": lambda: baseline.step(sequence, generator),
        "verify": lambda: verify(method, sequence, drafted, q_nV, generator),
        "propose": lambda: method.propose(sequence, method.n, generator)[0],
    }
    for engine in method.engines:
        engine.begin(len(sequence) + method.n)
    times = {name: [] for name in actions}
    with torch.inference_mode():
        for name in [*actions] * COST_TURNS:
            for _ in range(COST_BLOCK):
                start = time.perf_counter()
                result = actions[name]()
                took = time.perf_counter() - start
                times[name].append(took / max(1, len(result)) if name == "propose" else took)
                for engine in method.engines:
                    engine.rollback(min(engine.length, known))
    step, wide, one_draft = map(statistics.median, times.values())
    return {"draft_cost": one_draft / step, "verify_cost": wide / step, "target_step_ms": 1000 * step}


def _speeds(seconds, outputs, rounds) -> dict[str, float]:
    tokens = {name: sum(len(item.tokens) for item in made) for name, made in outputs.items()}
    rates = {name: [tokens[name] / spent for spent in seconds[name]] for name in seconds}
    ratios = [ours / theirs for ours, theirs in zip(rates["method"], rates["autoregressive"])]
    return {
        "tokens_per_s": statistics.median(rates["method"]),
        "autoregressive_tokens_per_s": statistics.median(rates["autoregressive"]),
        "speedup": statistics.median(ratios),
        "speedup_low": min(ratios),
        "speedup_high": max(ratios),
        "rounds": rounds,
    }


def _acceptance(generations: list[Generation], n: int, costs: dict[str, float]) -> dict:
    """Decision 13: both readings of the acceptance rate, in per cent, and what they predict."""
    tests = [sum(counts) for counts in zip(*(item.tests_per_position for item in generations))]
    accepts = [sum(counts) for counts in zip(*(item.accepts_per_position for item in generations))]
    accepted, steps = sum(item.accepted for item in generations), sum(item.steps for item in generations)
    rate = acceptance.per_position_rate(accepts, tests)
    tokens = sum(len(item.tokens) for item in generations)
    price = costs["draft_cost"], costs["verify_cost"]
    return {
        "n": n,
        "acceptance_rate": rate,
        "accepted_over_drafted": acceptance.accepted_over_drafted(accepted, sum(tests)),
        "overlap": acceptance.mean_overlap(sum(item.overlap for item in generations), sum(tests)),
        "tokens_per_step": acceptance.tokens_per_step(tokens, steps),
        "new_tokens_mean": tokens / len(generations),
        "tests_per_position": tests,
        "accepts_per_position": accepts,
        **costs,
        "predicted_speedup": acceptance.predicted_speedup((rate or 0) / 100, n, *price),
    }


def _record(tokenizer, eos: int, question: dict, ours: Generation, theirs: Generation) -> dict:
    def text(tokens):
        return tokenizer.decode([token for token in tokens if token != eos])

    return {
        "id": question["id"],
        "prompt": question["messages"][-2]["content"],
        "reference": question["messages"][-1]["content"],
        "prediction": text(ours.tokens),
        "autoregressive": text(theirs.tokens),
        "new_tokens": len(ours.tokens),
        "steps": ours.steps,
        "drafted": ours.drafted,
        "accepted": ours.accepted,
        "overlap": ours.overlap,
        "tests_per_position": ours.tests_per_position,
        "accepts_per_position": ours.accepts_per_position,
    }


def _quality(predictions: list[dict]) -> dict[str, float]:
    """Rouge-1 of both outputs: "without quality loss" is measured, not said."""

    def mean(name):
        return statistics.mean(rouge.score(item[name], item["reference"])["rouge1"] for item in predictions)

    return {"rouge1": mean("prediction"), "rouge1_autoregressive": mean("autoregressive")}
