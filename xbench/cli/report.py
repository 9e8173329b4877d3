"""`xbench report`: the figures of a run or of a capacity probe, as files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xbench.cli.options import Results, user_path
from xbench.cli.output import stderr_console, tolerate_closed_pipe
from xbench.errors import XbenchError
from xbench.records.capacity_store import find_capacity, read_capacity
from xbench.records.store import find_run
from xbench.storage.atomic import atomic_write, make_folder
from xbench.storage.paths import disk_hint
from xbench.text import escape_controls

if TYPE_CHECKING:
    from xbench.report.figure import Figure

EXAMPLES = """
Examples:

- `xbench report` draws the figures of the latest run
- `xbench report results/report/20260131-120000 --to paper` writes them to `paper/figures/`
- `xbench report results/probe-lbfgs/20260131-120000` draws a capacity probe
"""


def report(
    run: Annotated[
        str | None,
        typer.Argument(
            help="a run's folder, a suite's name or the folder of a probe; the latest run by default"
        ),
    ] = None,
    out: Results = Path("results"),
    to: Annotated[
        Path | None,
        typer.Option(
            parser=user_path("--to"),
            metavar="DIR",
            help="folder for the report; `report` in the run's folder by default",
        ),
    ] = None,
) -> None:
    """Draw the figures of a run from its records, as PNG and SVG, and list the files."""
    # Imported here: most commands need none of it, and answer at once.
    from xbench.report.capacity_figures import make_capacity_figures
    from xbench.report.figure_data import read_figures

    probe = None if run is None else find_capacity(out, run)
    if probe is not None:
        source, figures = probe, make_capacity_figures(read_capacity(probe))
    else:
        folder = find_run(out, run)
        source, figures = folder.path, read_figures(folder)
    target = to or source / "report"
    if not figures:
        line = f"warning: {source} has no figures: no cell of it has ended with a trace, a metric or a peak"
        stderr_console().print(escape_controls(line), style="bold yellow", markup=False, soft_wrap=True)
    with stderr_console().status("drawing figures"):  # shown on a terminal only
        files = list(_write_figures(target / "figures", figures))
    # Other parts of the report, such as its page, are written to `target` here and added to `files`.
    with tolerate_closed_pipe("the files are written; only their list was not printed"):
        for path in files:
            print(escape_controls(str(path)))


def _write_figures(folder: Path, figures: Sequence[Figure]) -> Iterator[Path]:
    """Write each figure as PNG and SVG, and yield the paths as they are written.

    Raises:
        XbenchError: the folder cannot be written.
    """
    from xbench.report.draw import draw_figure
    from xbench.report.figure import name_figures

    for name, figure in zip(name_figures(figures), figures, strict=True):
        for form, content in draw_figure(figure).items():
            path = folder / f"{name}.{form}"
            try:
                make_folder(folder)
                atomic_write(path, content)
            except OSError as error:
                hint = disk_hint(error, "choose another folder with --to")
                raise XbenchError(f"cannot write figures to {folder}: {error.strerror}", hint) from error
            yield path
