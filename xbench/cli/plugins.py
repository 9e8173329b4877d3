"""`xbench plugins`: which installed packages register what."""

from __future__ import annotations

from rich.table import Table

from xbench.cli.output import reader_may_leave, stdout_console
from xbench.components.registry import KINDS, registrations
from xbench.errors import XbenchError
from xbench.report.terminal import plain


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
                state = plain("ok")
            except XbenchError as error:
                state = plain(error.message, style="red")
            rows += [(name, kind, registration.name, state) for name in registration.distributions]
    for package, kind, name, state in sorted(rows, key=lambda row: row[:3]):
        table.add_row(plain(package), plain(kind), plain(name), state)
    with reader_may_leave():
        stdout_console().print(table)
