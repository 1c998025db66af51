"""What a person reads while a pair is served."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

from soaes.report.layout import columns, printable
from soaes.serve import checks
from soaes.serve.command import CPU, NAME, ServerSettings
from soaes.serve.pair import Pair, Question
from soaes.serve.server import Answer

INDENT = "  "
MAX_SPEEDS = 4  # measured rows that are shown of a pair

# The proof of a row (schema.SpeedMetrics) in words.
PROOFS = {
    "law": "the acceptance rule keeps the target's distribution",
    "equal tokens": "every token is the target's own",
    "equal tokens but for near ties": "every token is the target's own, but for near ties",
}


def heading(pair: Pair, draft: Path, path: Path) -> list[str]:
    """Say which models are served, and what was checked.

    Args:
        pair: The pair.
        draft: The folder that vLLM reads the draft from.
        path: The script with vLLM's command.
    """
    rows = []
    for model, folder in ((pair.target, pair.target.folder), (pair.draft, draft)):
        choice = f"({pair.choice})" if model is pair.draft and pair.choice else ""
        words = [model.title if model.name else "", model.label, choice]
        rows.append([model.role, "  ".join(filter(None, words)) or str(folder)])
    end = checks.served_format(pair.target).end
    checked = f"one tokenizer, {checks.rows(pair.target):,} rows, heads, chat template, stop {end}"
    rows += [["checked", checked], ["command", str(path)]]
    return columns(rows, None)


def answer_lines(question: Question, answer: Answer) -> Iterator[str]:
    """Show the question, its answer and what speculation did for it."""
    rows = [["question", question.text], ["answer", answer.text]]
    if question.reference:
        rows.append(["expected", question.reference])
    yield from columns([[name, printable(text)] for name, text in rows], None)
    end = ", cut there: the model did not end it" if answer.is_cut else ""
    speculation = f"{answer.accepted} of {answer.drafted} drafted tokens accepted"
    yield f"{INDENT}{answer.tokens} tokens{end}, {speculation}, in {answer.seconds:.2f} s"


def speed_lines(pair: Pair, device: str) -> Iterator[str]:
    """Say what was measured of the pair: each row's speedup, interval and proof.

    Args:
        pair: The pair.
        device: What vLLM runs on, cpu or cuda.
    """
    if not pair.speeds:
        of_folders = not (pair.target.name and pair.draft.name)
        why = "no row of the store is of these folders" if of_folders else "the store has no row"
        yield f"speedup: not measured, {why}; {_measured_by(pair)} measures it"
        return
    yield "speedup over autoregression, with its 95 % interval over prompts"
    rows = []
    for speed in pair.speeds[:MAX_SPEEDS]:
        low, high = speed.interval()
        settings = f"{speed.decoding}, {speed.sampling}"
        has_interval = low == low  # not NaN, as of a few prompts
        interval = f"[{low:.2f}, {high:.2f}]" if has_interval else "(too few prompts for one)"
        value = f"{speed.speedup:.2f} {interval}"
        rows.append([value, settings, f"{speed.library}, {speed.machine}", speed.name])
    yield from columns(rows, None, INDENT)
    if len(pair.speeds) > MAX_SPEEDS:
        yield f"{INDENT}and {len(pair.speeds) - MAX_SPEEDS} rows more"
    for proof in dict.fromkeys(speed.proof for speed in pair.speeds[:MAX_SPEEDS]):
        yield f"{INDENT}proof: {proof}, {PROOFS.get(proof, proof)}"
    if not any(speed.is_of_vllm for speed in pair.speeds):
        greedy = " sampling=greedy" if device == CPU else ""  # all that vLLM can there
        command = _measured_by(pair, f" backend=vllm{greedy}")
        yield f"{INDENT}measured with our decoding, not with vLLM; {command} times it"


def _measured_by(pair: Pair, more: str = "") -> str:
    """Return what measures a pair, in words: the command where these settings have one."""
    if pair.measure:
        return f"`{pair.measure}{more}`"
    return f"`goal=speed subject=distill{more}` with the settings that built the draft"


def usage(settings: ServerSettings, question: Question) -> Iterator[str]:
    """Say how the server is asked."""
    messages = [{"role": "user", "content": question.text}]
    body = {"model": NAME, "messages": messages, "temperature": 0}
    quoted = shlex.quote(json.dumps(body, ensure_ascii=False))
    yield f"{NAME} is served at {settings.url}/v1 until Ctrl-C; ask it with"
    yield f"{INDENT}curl {settings.url}/v1/chat/completions -H 'Content-Type: application/json' \\"
    yield f"{INDENT}{INDENT}-d {quoted}"
