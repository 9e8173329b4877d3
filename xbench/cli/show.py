"""`xbench show`: print the tables of an earlier run from its records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xbench.cli.options import Results, ResultsForm
from xbench.cli.output import Format, print_results
from xbench.records.store import find_run

EXAMPLES = """
Examples:

- `xbench show` prints the latest run
- `xbench show report` prints the latest run of the suite `report`
- `xbench show --memory` prints the parts of each memory peak
- `xbench show results/report/20260131-120000 --format markdown`
"""


def show(
    run: Annotated[
        str | None, typer.Argument(help="folder of a run, or name of a suite; by default the latest run")
    ] = None,
    out: Results = Path("results"),
    memory: Annotated[
        bool, typer.Option("--memory", help="print the parts of each memory peak instead of the results")
    ] = False,
    form: ResultsForm = Format.TABLE,
) -> None:
    """Print the tables of a run from its records."""
    print_results(find_run(out, run), form, memory)
