"""Write the page of a curation: what became of a user's documents, step by step.

    python -m soaes.report.curation data=files data.root=DIR     store/curation/files-HASH.html

`python -m soaes.run goal=data.documents data=files data.root=DIR` writes the same page at its end.
It is one file that opens from disk in any browser and asks the network for nothing; the same as
JSON lies beside it. Reads what the store has; builds nothing and imports no torch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from soaes.pipeline import conf_folders, sweep
from soaes.pipeline.progress import escape_unencodable_text, one_line_errors
from soaes.pipeline.store import check_writable
from soaes.report import results
from soaes.report.curation import page, steps


def main() -> None:
    """Run the command line."""
    escape_unencodable_text()
    arguments = _parser().parse_args()
    with one_line_errors():
        conf_folders.use(arguments.config_dir)
        for line in write(arguments.overrides, arguments.out):
            print(line)


def _parser() -> argparse.ArgumentParser:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m soaes.report.curation", description=summary)
    parser.add_argument(
        "overrides", nargs="*", help="as given to soaes.run: data=files data.root=DIR"
    )
    parser.add_argument("--out", type=Path, help="the file; curation/NAME.html of the store")
    conf_folders.add_option(parser)
    return parser


def write(overrides: list[str], out: Path | None = None) -> list[str]:
    """Write the page of each curation that a command line of soaes.run names.

    Args:
        overrides: The command line; its goal is data.documents unless it names another.
        out: The file; by default curation/NAME.html of the store.

    Returns:
        Each file and its size.

    Raises:
        ValueError: An override is misspelt, nothing is built, there is no curation behind the
            goal, or the file cannot be written.
    """
    store = results.existing_store_of(overrides)
    jobs = sweep.jobs(["goal=data.documents", *overrides])
    lasts = {last.name: last for last in (steps.curated(job.recipe) for job in jobs) if last}
    if not lasts:
        raise ValueError(
            "data: these documents are not curated from files; give data=files data.root=DIR"
        )
    if out is not None and (out.is_dir() or len(lasts) > 1):
        raise ValueError(
            f"--out {out}: must be a file, and of one curation: there are {len(lasts)}"
        )
    folder = out.parent if out else store.root / page.FOLDER
    check_writable(folder, "set --out FILE, where the page is written to")
    return [page.write(store, last, out) for last in lasts.values()]


if __name__ == "__main__":
    main()
