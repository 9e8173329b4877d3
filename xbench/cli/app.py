"""All commands."""

from __future__ import annotations

import typer

from xbench.cli import data, doctor, info, listing, plugins, probe_capacity, run, show

app = typer.Typer(
    help="Which optimizer, on your model, data and hardware: how good, how fast, how much memory.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command("run", epilog=run.EXAMPLES)(run.run)
app.command("probe-capacity", epilog=probe_capacity.EXAMPLES)(probe_capacity.probe_capacity)
app.command("show", epilog=show.EXAMPLES)(show.show)
app.command("list", epilog=listing.EXAMPLES)(listing.list_components)
app.command("info", epilog=info.EXAMPLES)(info.info)
app.add_typer(data.app, name="data")
app.command("plugins")(plugins.plugins)
app.command("doctor", epilog=doctor.EXAMPLES)(doctor.doctor)
