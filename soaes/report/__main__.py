"""Write one page that shows it all: verdicts, tables, answers, curves, time, failures and data.

    python -m soaes.report scale=tiny seed=0,1,2          store/tables/tiny/report.html
    python -m soaes.report scale=smoke --out report.html

The page is one file that opens from disk in any browser and asks the network for nothing. Reads
what the store has; builds nothing and imports no torch. `python -m soaes.table --report` writes the
same page beside the tables. W&B gets it too, unless logger=none.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from soaes.pipeline import compose, conf_folders
from soaes.pipeline.progress import escape_unencodable_text, one_line_errors
from soaes.pipeline.store import check_writable
from soaes.report import results, wandb_runs
from soaes.report.page import record, render
from soaes.report.table_spec import table_names


def main() -> None:
    """Run the command line."""
    escape_unencodable_text()
    arguments = _parser().parse_args()
    with one_line_errors():
        conf_folders.use(arguments.config_dir)
        print(write(arguments.overrides, arguments.out))


def _parser() -> argparse.ArgumentParser:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m soaes.report", description=summary)
    parser.add_argument(
        "overrides", nargs="*", help="as given to soaes.run, e.g. scale=smoke seed=0,1,2"
    )
    parser.add_argument(
        "--out", type=Path, help="the file; tables/SCALE/report.html of the store by default"
    )
    conf_folders.add_option(parser)
    return parser


def write(overrides: list[str], out: Path | None = None) -> str:
    """Write the page, and record it in W&B.

    Args:
        overrides: The command line of the sweeps, as of `soaes.table`.
        out: The file; by default tables/SCALE/report.html of the store.

    Returns:
        The file that was written and its size.

    Raises:
        ValueError: An override is misspelt, there is no store, or the file cannot be written.
    """
    if out is not None and out.is_dir():
        raise ValueError(f"--out {out}: this is a folder; name a file, as {out / 'report.html'}")
    store, scale = results.existing_store_of(overrides), compose.chosen_option(overrides, "scale")
    path = out or store.root / "tables" / scale / "report.html"
    check_writable(path.parent, "set --out FILE, where the page is written to")
    tables = results.read_tables(table_names(), overrides)
    shown = results.shown_unasked(tables, store)
    report = record.gather(overrides, tables, shown)
    written = render.write(path, report)
    wandb_runs.record_report(path, report.record, overrides)
    return written


if __name__ == "__main__":
    main()
