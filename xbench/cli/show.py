"""`xbench show`: a run's tables again, from its records alone."""

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
- `xbench show --memory` prints what each peak is made of
- `xbench show results/report/20260131-120000 --format markdown`
"""


def show(
    run: Annotated[
        str | None, typer.Argument(help="a run's folder or a suite's name; the latest run by default")
    ] = None,
    out: Results = Path("results"),
    memory: Annotated[
        bool, typer.Option("--memory", help="where the memory went, instead of the results")
    ] = False,
    form: ResultsForm = Format.TABLE,
) -> None:
    """Print the tables of a run from its records."""
    print_results(find_run(out, run), form, memory)
