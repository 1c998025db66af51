"""Look over an installation before a run: `python -m soaes.doctor scale=paper runtime=a800x8`.

A line for each finding: a mark (ok, warning, fault), what was looked at, what it is and, where it
is not ok, what to do. Takes the overrides of soaes.run and judges for them. Builds nothing, writes
nothing and loads no torch, unless a GPU is asked for or `--torch` is given: then a process of its
own does. Exits with 1 if there is a fault.
"""

from __future__ import annotations

import argparse
import importlib
import io
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from soaes.doctor import installation
from soaes.doctor.finding import Case, Finding, fault_of, findings, warning
from soaes.report.layout import counted, styled, terminal_width, wrap

# In this order, and each imported when its turn comes: what is broken there is a finding.
GROUPS = ("installation", "machine", "outputs", "configuration")
NEED_LIBRARIES = ("outputs", "configuration")  # of these, the ones that read conf/

STYLES = {"ok": "green", "warning": "yellow", "fault": "red"}
WIDTHS = (7, 12)  # of the mark and of what was looked at


def main() -> None:
    """Run the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader that has gone, as `| head`, ends it
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m soaes.doctor", description=summary)
    parser.add_argument(
        "overrides", nargs="*", help="as given to soaes.run, e.g. scale=paper runtime=a800x8"
    )
    parser.add_argument(
        "--torch", action="store_true", help="load torch in a process of its own, and see its GPUs"
    )
    # as soaes.pipeline.conf_folders has it, which imports more than a broken installation has
    parser.add_argument("--config-dir", "-cd", metavar="FOLDER", help="a folder beside conf/")
    arguments = parser.parse_args()
    counts: Counter[str] = Counter()
    try:
        for finding in examine(arguments.overrides, arguments.torch, arguments.config_dir):
            counts[finding.mark] += 1
            print(line(finding), flush=True)
    except KeyboardInterrupt:
        print("interrupted")
        sys.exit(130)
    faults, warnings = counted(counts["fault"], "fault"), counted(counts["warning"], "warning")
    print(f"\n{faults}, {warnings}, {counts['ok']} ok")
    sys.exit(1 if counts["fault"] else 0)


def examine(
    words: Sequence[str], with_torch: bool = False, config_dir: str | None = None
) -> Iterator[Finding]:
    """Run every check. Whatever is broken is a finding; nothing is raised.

    Args:
        words: The overrides of a command line of soaes.run. Where they are refused, the checks
            that need them judge nothing, and the finding says which.
        with_torch: Whether to load torch, in a process of its own, also where nothing needs it.
        config_dir: The user's folder beside conf/, if there is one.
    """
    case = Case(tuple(words), with_torch, config_dir)
    is_complete = not installation.missing()
    unchecked = []
    for group in GROUPS:
        if group in NEED_LIBRARIES and not is_complete:
            unchecked.append(group)
            continue
        try:
            checks = importlib.import_module(f"soaes.doctor.{group}").CHECKS
        except Exception as error:
            if is_complete:
                yield fault_of(group, error)
            else:
                unchecked.append(group)
            continue
        for what, check in checks.items():
            yield from findings(what, check, case)
    if unchecked:
        value = f"without these libraries nothing is known of {', '.join(unchecked)}"
        yield warning("libraries", value, "install them and run the doctor again")


def line(finding: Finding) -> str:
    """Format a finding: one line, on a terminal wrapped below its text."""
    mark_width, what_width = WIDTHS
    mark = f"{finding.mark:<{mark_width}}"
    width = terminal_width()
    hanging = " " * (mark_width + what_width + 4)
    text = f"{mark}  {finding.what:<{what_width}}  {finding.text}"
    wrapped = "\n".join(wrap(text, width, hanging=hanging))
    return styled(mark, STYLES[finding.mark]) + wrapped[mark_width:]


if __name__ == "__main__":
    main()
