"""`xbench report`: a page and figures of runs, or figures of a capacity probe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xbench.cli.options import Results, user_path
from xbench.cli.output import shorten_path, stderr_console, tolerate_closed_pipe
from xbench.errors import XbenchError
from xbench.records.capacity_store import find_capacity, read_capacity
from xbench.records.runs import find_run
from xbench.records.store import RunFolder
from xbench.storage.atomic import atomic_write, make_folder
from xbench.storage.paths import disk_hint
from xbench.text import escape_controls

if TYPE_CHECKING:
    from xbench.report.figure import Figure

EXAMPLES = """
Examples:

- `xbench report` writes the page and the figures of the latest run
- `xbench report results/report/20260131-120000 --to paper` writes them to `paper/`
- `xbench report first second --to both` writes one page of two suites' latest runs
- `xbench report results/probe-lbfgs/20260131-120000` draws a capacity probe
"""


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            help="runs: folders, IDs or suites' names; or the folder of a probe; the latest run by default",
            show_default=False,
        ),
    ] = None,
    out: Results = Path("results"),
    to: Annotated[
        Path | None,
        typer.Option(
            parser=user_path("--to"),
            metavar="DIR",
            help="folder for the report; `report` in the first run's folder by default",
        ),
    ] = None,
) -> None:
    """Write a page, `report.html`, and figures of runs from their records, and list the files.

    The page opens from disk and needs no network. Figures are PNG and SVG files.
    """
    probe = find_capacity(out, runs[0]) if runs and len(runs) == 1 else None
    with stderr_console().status("writing the report"):  # shown on a terminal only
        if probe is None:
            folders = [find_run(out, run) for run in runs] if runs else [find_run(out, None)]
            files = list(_report_runs(folders, to))
        else:
            files = list(_report_probe(probe, to))
    with tolerate_closed_pipe("the files are written; only their list was not printed"):
        for path in files:
            print(escape_controls(str(path)))


def _report_probe(folder: Path, to: Path | None) -> Iterator[Path]:
    from xbench.report.capacity_figures import make_capacity_figures

    yield from _write_figures(
        (to or folder / "report") / "figures", make_capacity_figures(read_capacity(folder))
    )


def _report_runs(folders: Sequence[RunFolder], to: Path | None) -> Iterator[Path]:
    """Write the page of some runs and their figures, and yield the paths as they are written."""
    from xbench.report.comparison import comparisons
    from xbench.report.curves import read_curves
    from xbench.report.figure_data import make_figures
    from xbench.report.page import make_page, make_run_page

    target = to or folders[0].path / "report"
    pages, figures = [], []
    for folder in folders:
        run, records = folder.read()
        compared = comparisons(run, records)
        figures.append(make_figures(run, records, read_curves(folder, run, records), compared))
        pages.append(make_run_page(folder, shorten_path(folder.path), run, records, compared, figures[-1]))
        if not figures[-1]:
            line = (
                f"warning: {folder.path} has no figures: no cell has ended with a trace, a metric or a peak"
            )
            stderr_console().print(escape_controls(line), style="bold yellow", markup=False, soft_wrap=True)
    with _writing(target):
        make_folder(target)
        atomic_write(target / "report.html", make_page(pages).encode())
    yield target / "report.html"
    for number, (folder, found) in enumerate(zip(folders, figures, strict=True), start=1):
        path = folder.path.resolve()
        own = f"{number}-{path.parent.name}-{path.name}" if len(folders) > 1 else ""
        yield from _write_figures(target / "figures" / own, found)


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
            with _writing(folder):
                make_folder(folder)
                atomic_write(path, content)
            yield path


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = disk_hint(error, "choose another folder with --to")
        raise XbenchError(f"cannot write the report to {folder}: {error.strerror}", hint) from error
