"""`xbench plugins`: which installed packages register what."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from xbench.cli.output import reader_may_leave, stdout_console
from xbench.components.registry import KINDS, registrations
from xbench.components.specs import Family, Spec
from xbench.errors import XbenchError
from xbench.report.layout import plain


def plugins() -> None:
    """List the packages that register components, and which of those cannot be used."""
    table = Table(title="plugins", title_justify="left")
    for column in ("package", "kind", "name", "state"):
        table.add_column(column)
    rows = []
    for kind in KINDS:
        for registration in registrations(kind).values():
            try:
                state = _state(registration.load())
            except XbenchError as error:
                state = plain(error.message, style="red")
            rows += [(name, kind, registration.name, state) for name in registration.distributions]
    for package, kind, name, state in sorted(rows, key=lambda row: row[:3]):
        table.add_row(plain(package), plain(kind), plain(name), state)
    with reader_may_leave():
        stdout_console().print(table)


def _state(component: Spec | Family) -> Text:
    """Describe a component that can be used: its author should delete fields that xbench no longer has."""
    removed = component.removed_fields if isinstance(component, Spec) else ()
    if not removed:
        return plain("ok")
    return plain(f"ok, but delete {', '.join(removed)}: removed, and refused by the next version", "yellow")
