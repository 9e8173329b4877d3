"""`xbench compare`: how the figures of runs changed, and a gate on the changes."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Annotated

import typer

from xbench.cli import EXIT_GATE_FAILED
from xbench.cli.options import Results, ResultsForm
from xbench.cli.output import (
    Format,
    no_garbage_collection,
    print_in_form,
    shorten_path,
    stderr_console,
    tolerate_closed_pipe,
)
from xbench.errors import XbenchError
from xbench.records.runs import find_run

EXAMPLES = """
Examples:

- `xbench compare latest~1 latest` compares the latest run with the one before
- `xbench compare report~1 report` compares the latest two runs of the suite `report`
- `xbench compare main-run branch-run --fail-on peak_memory:5% --fail-on test_accuracy:-0.01`
- `xbench compare A B C --format json`
"""


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="A B...",
            help="runs to compare, the reference first: a folder, a run's ID, a suite's name or `latest`; "
            "`~1` after a name is the run before",
        ),
    ],
    out: Results = Path("results"),
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIGURE:CHANGE",
            help="exit with 3 if a figure got worse by more than this (repeatable)",
            show_default=False,
        ),
    ] = None,
    form: ResultsForm = Format.TABLE,
) -> None:
    """Compare runs with the first one, from their records."""
    # Imported here: most commands need none of it, and answer at once.
    from xbench.report.gate import check_gate, describe_failures, parse_rules
    from xbench.report.layout import print_line
    from xbench.report.run_comparison import NamedRun, compare_runs, list_figures
    from xbench.report.run_comparison_document import make_comparison_document
    from xbench.report.run_differences import find_differences

    if len(runs) < 2:
        raise XbenchError(
            "only one run to compare", hint="name two runs or more, such as `xbench compare latest~1 latest`"
        )
    if len(runs) > len(string.ascii_uppercase):
        raise XbenchError(f"cannot compare {len(runs)} runs", hint="name 26 runs at most")
    folders = [find_run(out, wanted) for wanted in runs]
    with no_garbage_collection():
        named = [
            NamedRun(name, shorten_path(folder.path), *folder.read())
            for name, folder in zip(string.ascii_uppercase, folders, strict=False)
        ]
        rules = parse_rules(fail_on or [], list_figures(*(run.run for run in named)))
        keys = [rule.row.key for rule in rules]
        comparisons = [compare_runs(named[0], other, keys) for other in named[1:]]
        checks = check_gate(rules, comparisons)
        document = make_comparison_document(named, find_differences(named), comparisons, rules, checks)
        with tolerate_closed_pipe():
            print_in_form(document, form)
    failures = describe_failures(checks)
    for failure in failures:
        print_line(stderr_console(), f"gate: {failure}", "bold red")
    if failures:
        raise typer.Exit(EXIT_GATE_FAILED)
