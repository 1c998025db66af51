"""Serve a target and its draft with vLLM: `python -m soaes.serve scale=tiny`.

    python -m soaes.serve scale=tiny                             the fastest pair of these settings
    python -m soaes.serve scale=tiny draft=distill distill.tau=3 the draft of one node
    python -m soaes.serve target=sft-a36daa18d715 draft=distill-e04de21fbe07    stages of the store
    python -m soaes.serve target=models/7b draft=models/0.5b --port 8001        folders
    python -m soaes.serve scale=tiny --command > serve.sh        vLLM's command alone
    python -m soaes.serve scale=tiny -- --gpu-memory-utilization 0.8    more words for vLLM

Checks the pair, gives the draft the vocabulary rows that it lacks, starts vLLM (`make vllm`), asks
one question of the test split, says what speedup was measured of the pair and by what proof, and
serves until Ctrl-C, with the OpenAI API. docs/serving.md has more.
"""

from __future__ import annotations

import argparse
import signal
import sys

from soaes.decode.backends import vllm_environment
from soaes.pipeline import conf_folders
from soaes.pipeline.progress import escape_unencodable_text, one_line_errors
from soaes.pipeline.store import check_writable, write_text
from soaes.pipeline.validation import check_positive, check_whole
from soaes.serve import checks, text
from soaes.serve.command import NAME, ServerSettings, device, max_model_len, script
from soaes.serve.draft import draft_folder, export_draft, serving_folder
from soaes.serve.pair import Model, Pair, Question, find_pair
from soaes.serve.server import Answer, Server, check_port, running

MORE = "--"  # what follows goes to vLLM
MAX_ANSWER = 256  # tokens of the answer to the one question


def main() -> None:
    """Run the command line."""
    escape_unencodable_text()
    signal.signal(signal.SIGTERM, _interrupt)
    words, more = _split(sys.argv[1:])
    arguments = _parser().parse_intermixed_args(words)
    named = {"target": None, "draft": None}
    overrides = []
    for word in arguments.words:
        key, _, value = word.partition("=")
        if key in named:
            named[key] = value
        else:
            overrides.append(word)
    with one_line_errors():
        conf_folders.use(arguments.config_dir)
        settings = ServerSettings(
            arguments.host,
            arguments.port,
            arguments.tensor_parallel_size,
            arguments.max_model_len,
            tuple(more),
        )
        check_positive("--start-timeout", arguments.start_timeout, "seconds until it is healthy")
        if arguments.n is not None:
            check_whole("--n", arguments.n, 1, "drafted tokens in a block")
        pair = find_pair(overrides, named["target"], named["draft"], arguments.n)
        if arguments.command or pair.dry:
            _print_command(pair, settings)
        else:
            if arguments.question:
                question = Question(arguments.question)
            else:
                question = pair.question
            _serve(pair, settings, question, arguments.start_timeout)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Split a command line into ours and vLLM's."""
    if MORE not in words:
        return words, []
    place = words.index(MORE)
    return words[:place], words[place + 1 :]


def _parser() -> argparse.ArgumentParser:
    summary, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m soaes.serve",
        description=f"{summary}\n\n{more}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="target=... draft=... [OVERRIDE ...]",
        help="a node (target.chat, distill), a stage of the store or a folder each; overrides as "
        "given to soaes.run",
    )
    parser.add_argument(
        "--command", action="store_true", help="print vLLM's command alone, as dry=true does"
    )
    parser.add_argument("--host", default=ServerSettings.host, help="default: %(default)s")
    parser.add_argument(
        "--port", type=int, default=ServerSettings.port, help="default: %(default)s"
    )
    parser.add_argument(
        "--n", type=int, help="drafted tokens in a block; default: those of the measured row"
    )
    parser.add_argument(
        "--tensor-parallel-size",
        type=int,
        default=ServerSettings.tensor_parallel_size,
        metavar="N",
        help="devices over which both models are cut; default: %(default)s",
    )
    parser.add_argument(
        "--max-model-len",
        type=int,
        metavar="N",
        help="tokens of a prompt with its answer; default: all positions",
    )
    parser.add_argument("--question", help="what is asked first; default: one of the test split")
    parser.add_argument(
        "--start-timeout",
        type=float,
        default=900,
        metavar="SECONDS",
        help="until vLLM has to be healthy; default: %(default)s",
    )
    conf_folders.add_option(parser)
    return parser


# ---------------------------------------------------------------- the command alone


def _print_command(pair: Pair, settings: ServerSettings) -> None:
    runs_on = device(pair.device)
    remarks = checks.check_pair(pair, runs_on, settings.tensor_parallel_size)
    draft = draft_folder(pair)
    if draft != pair.draft.folder and not draft.exists():
        remarks.append(
            "the draft lacks vocabulary rows; soaes.serve without --command writes its folder"
        )
    if not vllm_environment.is_installed():
        remarks.append("vLLM is not installed here (`make vllm`): the command is that of its path")
    print(script(pair, draft, settings, runs_on, [_title(pair), *remarks]), end="")


def _say(*lines: str) -> None:
    print("\n".join(lines), flush=True)


def _title(pair: Pair) -> str:
    return f"{pair.target.title}, for which {pair.draft.title} drafts {pair.n} tokens in a block"


# ---------------------------------------------------------------- serving


def _serve(pair: Pair, settings: ServerSettings, question: Question, limit: float) -> None:
    vllm_environment.check_installed("print the command with --command")
    runs_on = device(pair.device)
    remarks = checks.check_pair(pair, runs_on, settings.tensor_parallel_size)
    max_tokens = answer_limit(pair, settings, question)
    check_port(settings.host, settings.port)
    folder = serving_folder(pair)
    check_writable(folder, "set runtime.store=FOLDER, where vLLM's command is written to")
    draft = export_draft(pair)
    # two servers of one pair have two ports
    path = folder / f"serve-{settings.port}.sh"
    write_text(path, script(pair, draft, settings, runs_on, [_title(pair), *remarks]))
    _say(*text.heading(pair, draft, path), "", path.read_text("utf-8").strip(), "")
    log = path.with_suffix(".log")
    _say(f"vLLM starts, which takes a minute or more; its log is {log}")
    with running(path, log, settings.url) as server:
        seconds = server.wait_until_ready(limit)
        _say(f"healthy after {seconds:.0f} s", "")
        answer = ask(server, pair.target, question, max_tokens)
        _say(*text.answer_lines(question, answer), "")
        _say(*text.speed_lines(pair, runs_on), "")
        if remarks:
            _say(*(f"note: {remark}" for remark in remarks), "")
        try:
            _say(*text.usage(settings, question), "")
            server.wait()
        except KeyboardInterrupt:
            _say("vLLM is ended")
    _say("it has ended")


def answer_limit(pair: Pair, settings: ServerSettings, question: Question) -> int:
    """Return how many tokens the answer to the question may have.

    Raises:
        ValueError: The question leaves no room for one.
    """
    longest = max_model_len(pair, settings)
    length = len(checks.prompt(pair.target, question.text))
    if length >= longest:
        raise ValueError(
            f"the question is {length:,} tokens of {longest:,}, which leaves none for its answer; "
            "ask a shorter one with --question, or give a larger --max-model-len"
        )
    return min(MAX_ANSWER, longest - length)


def ask(server: Server, target: Model, question: Question, max_tokens: int) -> Answer:
    """Ask the question, and check that the server reads it as the model was trained to.

    Raises:
        ValueError: It makes other tokens of it.
    """
    answer = server.ask(NAME, question.text, max_tokens)
    expected = len(checks.prompt(target, question.text))
    if answer.prompt_tokens != expected:
        raise ValueError(
            f"vLLM reads the question as {answer.prompt_tokens} tokens and the template of "
            f"{target.setting} writes {expected}; leave out --chat-template and --tokenizer, if "
            "they were given"
        )
    return answer


if __name__ == "__main__":
    main()
