"""`xbench list`: what is registered, and what of it is broken."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from xbench.cli.output import reader_may_leave, stdout_console
from xbench.components.registry import Kind, Registration, registrations
from xbench.components.specs import Family
from xbench.errors import XbenchError
from xbench.report.layout import make_table, plain
from xbench.suite.shipped import shipped_suites

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


_KINDS: dict[What, Kind] = {
    What.MODELS: "model",
    What.OPTIMIZERS: "optimizer",
    What.DATASETS: "dataset",
}


def list_components(
    what: Annotated[What | None, typer.Argument(help="all if not given", show_default=False)] = None,
) -> None:
    """List models, optimizers, datasets and suites."""
    with reader_may_leave():
        _print_lists([what] if what else list(What))


def _print_lists(kinds: list[What]) -> None:
    console = stdout_console()
    for item in kinds:
        kind = _KINDS.get(item)
        if kind is None:
            console.print(make_table("suites", ["name", "to run it"], _suite_rows()))
        else:
            rows = map(_row, registrations(kind).values())
            console.print(make_table(item.value, ["name", "from", "what it is"], rows))


def _suite_rows() -> list[list[Text]]:
    """The shipped suites, and the files in the folder `suites` here that are not among them."""
    shipped = shipped_suites()
    known = {path.resolve() for path in shipped.values()}
    rows = [[plain(name), plain(f"xbench run {name}")] for name in shipped]
    here = [path for path in sorted(Path("suites").glob("*.toml")) if path.resolve() not in known]
    return rows + [[plain(path.stem), plain(f"xbench run {path}")] for path in here]


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
