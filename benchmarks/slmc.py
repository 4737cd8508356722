"""The study of self-learning Monte Carlo on the double-exchange model: tables of every claim, as Markdown.

    python -m benchmarks.slmc [--folder runs/slmc] [--scaled] [--tables]

It can be stopped and started again; `tables.md` in the folder always holds what is finished, `study.png`
is its plot. `--tables` computes nothing new.
The full form takes about a quarter of an hour of one quiet core, `--scaled` some minutes.
"""

import argparse
import sys
from pathlib import Path

from equiform.cli.app import progress_bar
from equiform.errors import UserError
from equiform.papers.double_exchange import Study, StudyConfig
from equiform.papers.double_exchange_plot import draw_study
from equiform.papers.double_exchange_tables import reports
from equiform.runtime.files import write_atomically


def main(arguments: list[str] | None = None) -> int:
    """Do the study and print its tables."""
    parser = argparse.ArgumentParser(description="self-learning Monte Carlo on the double-exchange model")
    parser.add_argument("--folder", type=Path, default=Path("runs/slmc"))
    parser.add_argument("--scaled", action="store_true", help="a small form, of some minutes")
    parser.add_argument("--tables", action="store_true", help="print the tables of what is finished, and compute nothing")
    options = parser.parse_args(arguments)
    tables = options.folder / "tables.md"
    if not options.tables:
        config = StudyConfig().scaled() if options.scaled else StudyConfig()
        try:
            with progress_bar("self-learning Monte Carlo") as advance:
                study = Study(options.folder, config, advance)
                for text in reports(study):
                    write_atomically(tables, text.encode())
                draw_study(options.folder / "study.png", list(study.rows(study.models())))
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    print(tables.read_text() if tables.exists() else "nothing is finished yet")
    return 0


if __name__ == "__main__":
    sys.exit(main())
