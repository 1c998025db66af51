"""Plan the calls: which passages and documents are asked about, and make them.

The plan follows from the documents and settings alone, so the same calls are made again whatever
happened in between, and the log answers those that were made before.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import NamedTuple

from soaes.data.curation.document import CuratedDocument
from soaes.data.curation.passages import passages
from soaes.data.synthesis import prompts as prompting
from soaes.data.synthesis.calls import Author, CallLog, Reply, Request
from soaes.data.synthesis.settings import (
    AskingSettings,
    EndpointAuthor,
    PromptSettings,
    RuleAuthor,
    TransformersAuthor,
)
from soaes.data.synthesis.settings import Author as AuthorSettings
from soaes.data.synthesis.writer import MODEL
from soaes.pipeline.runtime import Endpoint

REPORT_EVERY = 5.0  # seconds between two lines of progress
MOST_REFUSED = 20  # requests of which, from the first one on, not all may be refused


class Place(NamedTuple):
    """What a question is to be about, `text[start:end]` of a document."""

    task: str
    document: str  # id
    start: int
    end: int


@dataclass(frozen=True)
class Call:
    """A call that is planned."""

    place: Place
    request: Request


def plan(
    documents: Iterable[CuratedDocument],
    asking: AskingSettings,
    prompts: PromptSettings,
    model: str,
    parameters: dict[str, object],
) -> list[Call]:
    """Return the calls to make, in their order: reports first, then questions.

    Documents take turns in an order by the seed: the first passage of each, then the second.

    Args:
        documents: Documents of the corpus; general text is not asked about.
        asking: How many questions, and about what.
        prompts: What the model is told.
        model: Its name.
        parameters: Of decoding.
    """
    ranked: dict[str, Ranked] = {"report": [], "qa": []}
    counts = {"report": asking.reports, "qa": asking.qa}
    for document in documents:
        if document["kind"] != "corpus":
            continue
        places_of = {"report": _whole(document, asking), "qa": _passages(document, asking)}
        for task, places in places_of.items():
            ordered = sorted((_order(place, asking.seed), place) for place in places)
            for turn, (order, place) in enumerate(ordered[: asking.max_per_document]):
                text = document["text"][place.start : place.end]
                messages = prompting.messages(prompts, task, document["title"], text)
                call = Call(place, Request(model, messages, parameters))
                ranked[task].append(((turn, order), call))
            # of many documents only the calls that may be made are kept
            ranked[task] = _first(ranked[task], counts[task])
    chosen = [_sorted(ranked[task])[: counts[task]] for task in ranked]
    return [call for of_task in chosen for _, call in of_task]


def model_and_parameters(author: AuthorSettings, name: str = "") -> tuple[str, dict[str, object]]:
    """Return by what a call knows its author.

    Args:
        author: Who answers.
        name: Of a local model.
    """
    if isinstance(author, RuleAuthor):
        return MODEL, {"version": author.version}
    if isinstance(author, TransformersAuthor):
        return name, {"max_new_tokens": author.max_new_tokens}
    assert isinstance(author, EndpointAuthor)
    parameters: dict[str, object] = {
        "temperature": author.temperature,
        "top_p": author.top_p,
        "max_tokens": author.max_tokens,
        **author.extra,
    }
    return author.model, parameters


@dataclass
class Usage:
    """What was asked so far.

    Attributes:
        total: Calls in all.
        done: Of them, those that are answered.
        made: Of these, those that this process made.
        refused: Of these, those that the server refused.
        prompt_tokens: Of the calls made.
        answer_tokens: Likewise.
    """

    total: int
    done: int = 0
    made: int = 0
    refused: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of the calls made."""
        return self.prompt_tokens + self.answer_tokens

    def line(self, endpoint: Endpoint) -> str:
        """Return the progress in one line: calls, tokens of the budget, and their cost."""
        refused = f", {self.refused:,} refused" if self.refused else ""
        parts = [f"{self.done:,}/{self.total:,} calls ({self.made:,} new{refused})"]
        budget = f" of {endpoint.max_tokens:,}" if endpoint.max_tokens else ""
        parts.append(f"{self.tokens:,}{budget} tokens")
        cost = endpoint.cost(self.prompt_tokens, self.answer_tokens)
        if endpoint.prompt_price or endpoint.answer_price:
            parts.append(f"cost {cost:,.4f}")
        return ", ".join(parts)


def ask_all(
    calls: Sequence[Call],
    author: Author,
    log: CallLog,
    endpoint: Endpoint,
    report: Callable[[Usage], None] = lambda usage: None,
) -> list[Reply]:
    """Return the answers to all calls, in their order; what the log has is not asked again.

    Args:
        calls: The calls; equal ones are made once.
        author: Who answers, several at once.
        log: Keeps every answer before it counts.
        endpoint: How many calls are under way at once, and the budget of tokens.
        report: Told of the progress, every few seconds and at the end.

    Raises:
        ValueError: The author cannot answer, refuses all of the first requests, or the budget is
            used up; answers stay in the log.
    """
    todo = {call.request.digest: call.request for call in calls}
    todo = {digest: request for digest, request in todo.items() if log.get(request) is None}
    usage = Usage(total=len(calls), done=_answered(calls, todo))
    by_digest = Counter(call.request.digest for call in calls)
    last_report = time.monotonic()
    waiting = iter(todo.values())
    running: dict[Future[Reply], Request] = {}
    problem: ValueError | None = None
    with ThreadPoolExecutor(endpoint.concurrency) as pool:
        while True:
            while problem is None and len(running) < endpoint.concurrency:
                request = next(waiting, None)
                if request is None:
                    break
                if _is_used_up(usage, endpoint):
                    problem = _budget(usage, endpoint)
                    break
                running[pool.submit(_logged, author, log, request)] = request
            if not running:
                break
            finished, _ = wait(running, timeout=REPORT_EVERY, return_when=FIRST_COMPLETED)
            for future in finished:
                request = running.pop(future)
                error = future.exception()
                if error is not None:
                    if not isinstance(error, ValueError):
                        raise error
                    problem = problem or error  # calls under way are still awaited and logged
                    continue
                reply = future.result()
                usage.done += by_digest[request.digest]
                usage.made += 1
                usage.refused += reply.is_refused
                if usage.refused == usage.made == MOST_REFUSED:
                    problem = problem or _all_refused(reply)
                usage.prompt_tokens += reply.prompt_tokens
                usage.answer_tokens += reply.completion_tokens
            if time.monotonic() - last_report >= REPORT_EVERY:
                report(usage)
                last_report = time.monotonic()
    report(usage)
    if problem is not None:
        kept = f"{usage.done:,} of {usage.total:,} calls are answered and kept"
        raise ValueError(f"{problem}; {kept}, the same command makes the others")
    return [_reply(log, call) for call in calls]


def _logged(author: Author, log: CallLog, request: Request) -> Reply:
    reply = author.answer(request)
    log.add(request, reply)
    return reply


def _reply(log: CallLog, call: Call) -> Reply:
    reply = log.get(call.request)
    assert reply is not None, call
    return reply


def _answered(calls: Sequence[Call], todo: dict[str, Request]) -> int:
    return sum(call.request.digest not in todo for call in calls)


def _is_used_up(usage: Usage, endpoint: Endpoint) -> bool:
    return endpoint.max_tokens is not None and usage.tokens >= endpoint.max_tokens


def _budget(usage: Usage, endpoint: Endpoint) -> ValueError:
    return ValueError(
        f"endpoint.max_tokens={endpoint.max_tokens}: used up ({usage.tokens:,} tokens); raise it, "
        "or ask less (data.ask.asking.qa)"
    )


def _all_refused(reply: Reply) -> ValueError:
    return ValueError(
        f"the server refused the first {MOST_REFUSED} requests ({reply.finish_reason}: "
        f"{reply.content}); check the settings of author and the server's"
    )


def _passages(document: CuratedDocument, asking: AskingSettings) -> Iterator[Place]:
    """Yield passages of at least `passage_chars`; what is left at the end is the last one."""
    start: int | None = None
    end = 0
    for passage in passages(document["text"]):
        start = passage.start if start is None else start
        end = passage.end
        if end - start >= asking.passage_chars:
            yield Place("qa", document["id"], start, end)
            start = None
    if start is not None:
        yield Place("qa", document["id"], start, end)


def _whole(document: CuratedDocument, asking: AskingSettings) -> Iterator[Place]:
    """Yield the beginning of a document that is long enough for a report."""
    end = 0
    for passage in passages(document["text"]):
        if passage.end > asking.report_chars:
            break
        end = passage.end
    if end >= asking.min_report_chars:
        yield Place("report", document["id"], 0, end)


def _order(place: Place, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{':'.join(map(str, place))}".encode()).digest()


Ranked = list[tuple[tuple[int, bytes], Call]]


def _first(ranked: Ranked, count: int | None) -> Ranked:
    """Return what may still be among the first; sorted anew when it has doubled."""
    if count is None or len(ranked) < 2 * count + 1000:
        return ranked
    return _sorted(ranked)[:count]


def _sorted(ranked: Ranked) -> Ranked:
    return sorted(ranked, key=lambda entry: entry[0])
