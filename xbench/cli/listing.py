"""`xbench list`: what is registered, and what of it is broken."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from xbench.cli.output import reader_may_leave, stdout_console
from xbench.components.registry import Kind, Registration, registrations
from xbench.components.specs import Family
from xbench.errors import XbenchError
from xbench.report.terminal import plain

EXAMPLES = """
Examples:

- `xbench list`
- `xbench list optimizers`
"""


class What(StrEnum):
    """What can be listed."""

    MODELS = "models"
    OPTIMIZERS = "optimizers"
    DATASETS = "datasets"
    SUITES = "suites"


def list_components(
    what: Annotated[What | None, typer.Argument(help="all if not given", show_default=False)] = None,
) -> None:
    """List models, optimizers, datasets and suites."""
    with reader_may_leave():
        _print_lists([what] if what else list(What))


def _print_lists(kinds: list[What]) -> None:
    console = stdout_console()
    for item in kinds:
        if item is What.SUITES:
            table = _table("suites", "file")
            for path in sorted(Path("suites").glob("*.toml")):
                table.add_row(plain(str(path)))
        else:
            kind: Kind = item.value.removesuffix("s")
            table = _table(item.value, "name", "from", "what it is")
            for registration in registrations(kind).values():
                table.add_row(*_row(registration))
        console.print(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column)
    return table


def _row(registration: Registration) -> tuple[Text, Text, Text]:
    name = registration.name
    try:
        component = registration.load()
        what = plain(component.summary)
        if isinstance(component, Family):
            name += "/..."
    except XbenchError as error:
        what = plain(f"broken: {error.message}", style="red")
    return plain(name), plain(" and ".join(registration.distributions)), what
