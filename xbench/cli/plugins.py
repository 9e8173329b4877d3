"""`xbench plugins`: list the installed packages that register components."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from xbench.cli.output import stdout_console, tolerate_closed_pipe
from xbench.components.registry import KINDS, registrations
from xbench.components.specs import Family, Spec
from xbench.errors import XbenchError
from xbench.report.layout import plain


def plugins() -> None:
    """List the packages that register components, and say which components cannot be used."""
    table = Table(title="plugins", title_justify="left")
    for column in ("package", "kind", "name", "state"):
        table.add_column(column)
    rows = []
    for kind in KINDS:
        for registration in registrations(kind).values():
            try:
                state = _describe_state(registration.load())
            except XbenchError as error:
                state = plain(error.message, style="red")
            rows += [(name, kind, registration.name, state) for name in registration.distributions]
    for package, kind, name, state in sorted(rows, key=lambda row: row[:3]):
        table.add_row(plain(package), plain(kind), plain(name), state)
    with tolerate_closed_pipe():
        stdout_console().print(table)


def _describe_state(component: Spec | Family) -> Text:
    """Describe the state of a usable component, including fields that its author should delete."""
    removed = component.removed_fields if isinstance(component, Spec) else ()
    if not removed:
        return plain("ok")
    return plain(f"ok, but delete {', '.join(removed)}, which the next version rejects", "yellow")
