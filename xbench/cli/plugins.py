"""`xbench plugins`: which installed packages register what."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from xbench.cli.output import stdout_console
from xbench.components.registry import KINDS, registrations
from xbench.errors import XbenchError


def plugins() -> None:
    """List the packages that register components, and which of those cannot be used."""
    table = Table(title="plugins", title_justify="left")
    for column in ("package", "kind", "name", "state"):
        table.add_column(column)
    rows = []
    for kind in KINDS:
        for registration in registrations(kind).values():
            try:
                registration.load()
                state = Text("ok")
            except XbenchError as error:
                state = Text(error.message, style="red")
            rows += [(name, kind, registration.name, state) for name in registration.distributions]
    for package, kind, name, state in sorted(rows, key=lambda row: row[:3]):
        table.add_row(Text(package), Text(kind), Text(name), state)
    stdout_console().print(table)
