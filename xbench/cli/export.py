"""`xbench export`: write a run for TensorBoard or MLflow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xbench.cli.options import Results, user_path
from xbench.cli.output import shorten_path, stderr_console
from xbench.errors import XbenchError
from xbench.records.runs import find_run
from xbench.text import pluralize

if TYPE_CHECKING:
    from xbench.report.export.contents import ExportedCell

EXAMPLES = """
Examples:

- `xbench export latest --tensorboard events`, then `tensorboard --logdir events`
- `xbench export report --mlflow http://localhost:5000`, or `sqlite:///mlflow.db`
"""


def export(
    run: Annotated[
        str | None,
        typer.Argument(help="a run's folder or ID, or a suite's name; the latest run by default"),
    ] = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            parser=user_path("--tensorboard"),
            help="write TensorBoard event files to this folder",
            show_default=False,
        ),
    ] = None,
    mlflow: Annotated[
        str | None,
        typer.Option(metavar="URI", help="write runs to this MLflow server or database", show_default=False),
    ] = None,
    out: Results = Path("results"),
) -> None:
    """Write a run's traces, epochs, metrics and settings for another tool, from its records."""
    # Imported here: most commands need none of it, and answer at once.
    from xbench.report.declared_cells import list_ended
    from xbench.report.export.contents import collect_cell
    from xbench.report.layout import print_line

    if (tensorboard is None) == (mlflow is None):
        raise XbenchError("one target is needed", hint="name --tensorboard DIR or --mlflow URI")
    folder = find_run(out, run)
    described, records = folder.read()

    def warn(text: str) -> None:
        print_line(stderr_console(), f"warning: {text}", "bold yellow")

    def collect() -> Iterator[ExportedCell]:
        for cell in list_ended(described, records):
            exported, problem = collect_cell(folder, cell)
            if problem:
                warn(f"{problem}; it is exported without")
            yield exported

    for warning in described.warnings:
        warn(warning)
    if tensorboard is not None:
        from xbench.report.export.tensorboard import write_tensorboard

        count, target = write_tensorboard(collect(), tensorboard), str(tensorboard)
    else:
        from xbench.report.export.mlflow import write_mlflow

        assert mlflow is not None
        count, target = write_mlflow(collect(), mlflow, described.suite, folder.run_id), mlflow
    print_line(
        stderr_console(),
        f"{pluralize(count, 'cell')} of {shorten_path(folder.path)} exported to {target}",
        "",
    )
