"""The command-line application, with all commands."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from xbench.cli import (
    compare,
    data,
    doctor,
    export,
    info,
    listing,
    new,
    plugins,
    probe_capacity,
    report,
    run,
    runs,
    show,
)
from xbench.cli.interrupts import report_interrupt


class _Commands(TyperGroup):
    """The commands. An interrupt that none of them has handled ends them as `interruptible` does."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise report_interrupt() from None


app = typer.Typer(
    cls=_Commands,
    help="Benchmark optimizers on your model, data and hardware: quality, speed and memory.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        from importlib.metadata import version as version_of

        print(f"xbench {version_of('xbench')}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and exit"),
    ] = False,
) -> None:
    pass


app.command("run", epilog=run.EXAMPLES)(run.run)
app.command("probe-capacity", epilog=probe_capacity.EXAMPLES)(probe_capacity.probe_capacity)
app.command("show", epilog=show.EXAMPLES)(show.show)
app.command("report", epilog=report.EXAMPLES)(report.report)
app.command("compare", epilog=compare.EXAMPLES)(compare.compare)
app.command("runs", epilog=runs.EXAMPLES)(runs.runs)
app.command("export", epilog=export.EXAMPLES)(export.export)
app.command("list", epilog=listing.EXAMPLES)(listing.list_components)
app.command("info", epilog=info.EXAMPLES)(info.info)
app.add_typer(data.app, name="data")
app.add_typer(plugins.app, name="plugins")
app.command("new", epilog=new.EXAMPLES)(new.new)
app.command("doctor", epilog=doctor.EXAMPLES)(doctor.doctor)
