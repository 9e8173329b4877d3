"""`xbench run`: a suite, from file to tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xbench.cli import EXIT_CELL_FAILED, EXIT_INTERRUPTED
from xbench.cli.options import AllowImport, Device
from xbench.cli.output import Format, print_results, stderr_console

EXAMPLES = """
Examples:

- `xbench run suites/report.toml`
- `xbench run suites/report.toml --only table-3 --seeds 3`
- `xbench run suites/report.toml --set 'adam.lr=[1e-4,1e-3]' --set epochs=2 --dry-run`
- `xbench run my.toml --allow-import . --format json > result.json`
"""

ANSWERED = "every cell has its result already; nothing was run (--fresh runs all of them again)"


def run(
    suite: Annotated[Path, typer.Argument(help="a suite file (TOML)", show_default=False)],
    only: Annotated[list[str] | None, typer.Option(help="run this experiment alone (repeatable)")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="change a key: epochs=2, suite.device=cpu, adam.lr=[1e-4,1e-3]"
        ),
    ] = None,
    device: Device = None,
    memory_limit: Annotated[
        str | None, typer.Option(help="hard limit of each cell, such as 12GB, 12GiB or 50%")
    ] = None,
    time_limit: Annotated[
        str | None, typer.Option(help="of the whole run, such as 15m: what cannot end within it is skipped")
    ] = None,
    timeout: Annotated[
        str | None, typer.Option(help="of each cell, such as 30m: one that takes longer is ended")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="number of seeds of every cell")] = None,
    out: Annotated[Path, typer.Option(help="folder for results")] = Path("results"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check the suite, print its cells with time estimates, stop")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="run every cell again, whatever earlier runs have of them")
    ] = False,
    allow_import: AllowImport = None,
    form: Annotated[Format, typer.Option("--format", help="how results are printed")] = Format.TABLE,
) -> None:
    """Run every cell of a suite and print its tables.

    The latest run of the same suite goes on where it was left: what has ended is not run again, what failed
    is (four times at most). Of an edited suite, what changed is run.

    Exit codes: 0 no cell failed; 1 some cell is oom, diverged, timeout or error; 2 the suite or the command
    is wrong; 130 interrupted.
    """
    # Imported here: the other commands need none of it, and answer at once.
    from xbench.cli.dry_run import print_cells
    from xbench.cli.progress import ProgressDisplay
    from xbench.execution.plan import plan_run
    from xbench.execution.request import answered_before
    from xbench.execution.run import preview, run_plan
    from xbench.isolation.interrupts import interrupt_on_signals
    from xbench.isolation.server import start_server
    from xbench.records.lock import sole_run
    from xbench.records.store import check_writable, folder_of_suite
    from xbench.suite.overrides import SuiteOption
    from xbench.suite.reader import read_suite

    flags = {
        "device": device,
        "memory-limit": memory_limit,
        "time-limit": time_limit,
        "timeout": timeout,
        "seeds": seeds,
    }
    overrides = [SuiteOption(name, str(value)) for name, value in flags.items() if value is not None]
    import_dirs = [str(directory) for directory in allow_import or []]
    display = ProgressDisplay()
    interrupt_on_signals()
    try:
        text = read_suite(suite, [*(set_ or []), *overrides], only or [])
        folder = None if fresh or dry_run else answered_before(text, import_dirs, out)
        if folder is not None:
            stderr_console().print(ANSWERED, style="dim", markup=False)
        elif dry_run:
            start_server()
            plan = plan_run(text, import_dirs)
            with display:
                jobs = preview(plan, display)
            print_cells(plan, jobs, form)
            return
        else:
            check_writable(out)
            with sole_run(folder_of_suite(out, text.header.name)):
                start_server()
                plan = plan_run(text, import_dirs)
                with display:
                    folder = run_plan(plan, out, display, fresh)
        print_results(folder, form)
        _, records = folder.read()
    except KeyboardInterrupt:
        where = f"; what had ended is in {display.folder}" if display.folder else ""
        stderr_console().print(f"interrupted{where}", style="yellow", markup=False)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if any(record.is_failure for record in records):
        raise typer.Exit(EXIT_CELL_FAILED)
