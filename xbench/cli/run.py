"""`xbench run`: run a suite and print its tables."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xbench.cli import EXIT_CELL_FAILED
from xbench.cli.interrupts import interruptible
from xbench.cli.options import AllowImport, Baseline, Device, Results, ResultsForm, user_path
from xbench.cli.output import Format, print_cache_note, print_results, shorten_path

if TYPE_CHECKING:
    from xbench.records.store import RunFolder
    from xbench.suite.reader import Suite

EXAMPLES = """
Examples:

- `xbench run suites/report.toml`
- `xbench run suites/report.toml --only table-3 --seeds 3`
- `xbench run suites/report.toml --set 'adam.lr=[1e-4,1e-3]' --set epochs=2 --dry-run`
- `xbench run my.toml --allow-import code --format json > result.json`
"""


def run(
    suite: Annotated[
        Path,
        typer.Argument(
            parser=user_path("suite"),
            metavar="suite",
            help="a suite file (TOML), or the name of a shipped suite",
            show_default=False,
        ),
    ],
    only: Annotated[list[str] | None, typer.Option(help="run only this experiment (repeatable)")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="change a setting: epochs=2, suite.device=cpu, adam.lr=[1e-4,1e-3]",
        ),
    ] = None,
    device: Device = None,
    memory_limit: Annotated[
        str | None, typer.Option(help="hard limit of each cell, such as 12GB, 12GiB or 50%")
    ] = None,
    time_limit: Annotated[
        str | None,
        typer.Option(
            help="limit for the whole run, such as 15m; cells that would not end in time are skipped"
        ),
    ] = None,
    timeout: Annotated[
        str | None, typer.Option(help="limit for each cell, such as 30m; a cell that takes longer is stopped")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="number of seeds for every cell")] = None,
    out: Results = Path("results"),
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="check the suite and print its cells with time estimates, without running them"
        ),
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="run every cell again, ignoring earlier results")
    ] = False,
    allow_import: AllowImport = None,
    baseline: Baseline = None,
    form: ResultsForm = Format.TABLE,
) -> None:
    """Run every cell of a suite and print its tables.

    If the suite has been run before, its latest run is continued. Cells that have ended do not run again,
    unless they failed (up to four attempts) or were skipped for lack of time. If the suite was edited, only
    changed cells run.

    Exit codes: 0 no cell failed; 1 a cell is oom, diverged, timeout or error, or no cell ran; 2 the suite or
    the command is invalid; 130 interrupted. A trial of a search that fails changes nothing, unless no other
    trial succeeds.
    """
    started = time.monotonic()  # the time limit counts from here
    # Imported here, so that other commands start quickly.
    from xbench.report.comparison import View
    from xbench.report.notes import describe_empty_run
    from xbench.suite.overrides import SuiteOption
    from xbench.suite.reader import read_suite
    from xbench.suite.shipped import find_suite

    flags = {
        "device": device,
        "memory-limit": memory_limit,
        "time-limit": time_limit,
        "timeout": timeout,
        "seeds": seeds,
        "baseline": baseline,
    }
    overrides = [SuiteOption(name, str(value)) for name, value in flags.items() if value is not None]
    import_dirs = [str(directory) for directory in allow_import or []]
    print_cache_note()
    requested = read_suite(find_suite(suite), [*(set_ or []), *overrides], only or [])
    if dry_run:
        _preview(requested, import_dirs, form, started)
        return
    folder = _run(requested, import_dirs, out, fresh, started)
    with interruptible(lambda: f"the results are in {folder.path}"):
        again = shlex.join(["xbench", "show", shorten_path(folder.path)])
        hint = f"the results are kept: `{again}` prints them again"
        print_results(folder, form, View(baseline=baseline or ""), hint=hint)
        _, records = folder.read()
    if describe_empty_run(records) or any(record.is_failure for record in records if record.trial is None):
        raise typer.Exit(EXIT_CELL_FAILED)


def _run(suite: Suite, import_dirs: list[str], out: Path, fresh: bool, started: float) -> RunFolder:
    """Run the remaining cells of a suite, while holding the lock on its results.

    Args:
        started: when the command began, by `time.monotonic`.
    """
    from xbench.cli.progress import ProgressDisplay
    from xbench.execution.run import run_plan
    from xbench.planning.plan import plan_run
    from xbench.records.store import check_writable, folder_of_suite, lock_suite_runs

    check_writable(out)
    display = ProgressDisplay()
    with interruptible(display.describe_outcome), display:
        plan = plan_run(suite, import_dirs, display.working)
        with lock_suite_runs(folder_of_suite(out, plan.name)):
            display.working("reading earlier results")
            return run_plan(plan, out, display, fresh, started)


def _preview(suite: Suite, import_dirs: list[str], form: Format, started: float) -> None:
    """Print the cells that would run.

    Args:
        started: when the command began, by `time.monotonic`.
    """
    from xbench.cli.dry_run import print_cells
    from xbench.cli.progress import ProgressDisplay
    from xbench.execution.run import preview
    from xbench.planning.plan import plan_run

    display = ProgressDisplay()
    with interruptible(), display:
        plan = plan_run(suite, import_dirs, display.working)
        display.working("reading a few images of each dataset")
        cells, warnings = preview(plan, display, started)
    print_cells(plan, cells, warnings, form)
