"""`xbench show`: print the tables of an earlier run from its records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from xbench.cli.options import Baseline, Results, ResultsForm
from xbench.cli.output import Format, print_results
from xbench.errors import XbenchError

EXAMPLES = """
Examples:

- `xbench show` prints the latest run
- `xbench show report` prints the latest run of the suite `report`
- `xbench show --memory` prints the parts of each memory peak
- `xbench show --settings` prints all settings of each optimizer
- `xbench show --baseline adam --columns test_accuracy,training_s,needed_bytes`
- `xbench show --format csv --findings`
- `xbench show --format csv --trials`
- `xbench show results/report/20260131-120000 --format markdown`
"""

_SETTINGS_NOTE = (
    "settings of an optimizer, model or dataset that are not listed, or have no value, have its defaults "
    "(`xbench info NAME`)"
)


def show(
    run: Annotated[
        str | None, typer.Argument(help="folder of a run, or name of a suite; by default the latest run")
    ] = None,
    out: Results = Path("results"),
    memory: Annotated[
        bool, typer.Option("--memory", help="print the parts of each memory peak instead of the results")
    ] = False,
    settings: Annotated[
        bool, typer.Option("--settings", help="print all settings of each optimizer instead of the results")
    ] = False,
    baseline: Baseline = None,
    sort: Annotated[
        str,
        typer.Option(metavar="FIGURE", help="sort optimizers by a figure, such as test_accuracy, best first"),
    ] = "",
    columns: Annotated[
        str, typer.Option(metavar="FIGURE,...", help="show only these figures and settings, in this order")
    ] = "",
    findings: Annotated[
        bool, typer.Option("--findings", help="with --format csv, the findings in place of the figures")
    ] = False,
    trials: Annotated[
        bool,
        typer.Option("--trials", help="with --format csv, the trials of searches in place of the figures"),
    ] = False,
    form: ResultsForm = Format.TABLE,
) -> None:
    """Print a run's tables and findings from its records."""
    # Imported here: most commands need none of it, and answer at once.
    from xbench.records.runs import find_run
    from xbench.report.breakdown import MEMORY_ROWS, NOTE
    from xbench.report.comparison import View

    if trials and form is not Format.CSV:
        raise XbenchError("--trials works only with --format csv", hint="--format json has the trials anyway")
    if findings and trials:
        raise XbenchError("--findings and --trials are two tables", hint="print one after the other")
    if findings and form is not Format.CSV:
        raise XbenchError(
            "--findings works only with --format csv", hint="the other forms show the findings anyway"
        )
    if columns and form in (Format.CSV, Format.JSON):
        raise XbenchError(f"--columns does not apply to --format {form}", hint="it always has every field")
    if memory and settings:
        raise XbenchError("--memory and --settings are two tables", hint="print one after the other")
    keys = tuple(filter(None, (key.strip() for key in columns.split(","))))
    view = View(keys=keys, sort=sort, baseline=baseline or "")
    if memory:
        view = replace(view, rows=MEMORY_ROWS, note=NOTE)
    if settings:
        view = replace(view, rows=(), has_all_settings=True, note=_SETTINGS_NOTE)
    print_results(find_run(out, run), form, view, findings, trials)
