"""`xbench list`: list the registered components, including broken ones, and the suites."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from xbench.cli.output import stdout_console, tolerate_closed_pipe
from xbench.components.registry import Kind, Registration, registrations
from xbench.components.specs import Family
from xbench.errors import XbenchError
from xbench.report.layout import make_table, plain
from xbench.suite.shipped import describe_suite, shipped_suites

EXAMPLES = """
Examples:

- `xbench list`
- `xbench list optimizers`
"""


class What(StrEnum):
    """Kinds of things that can be listed."""

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
    what: Annotated[
        What | None, typer.Argument(help="what to list; everything by default", show_default=False)
    ] = None,
) -> None:
    """List models, optimizers, datasets and suites."""
    with tolerate_closed_pipe():
        _print_lists([what] if what else list(What))


def _print_lists(kinds: list[What]) -> None:
    console = stdout_console()
    for item in kinds:
        kind = _KINDS.get(item)
        if kind is None:
            console.print(make_table("suites", ["name", "command", "description"], _make_suite_rows()))
        else:
            rows = map(_make_row, registrations(kind).values())
            console.print(make_table(item.value, ["name", "from", "description"], rows))


def _make_suite_rows() -> list[list[Text]]:
    """List the shipped suites, and other suite files in `./suites`."""
    shipped = shipped_suites()
    known = {path.resolve() for path in shipped.values()}
    rows = [
        [plain(name), plain(f"xbench run {name}"), plain(describe_suite(path))]
        for name, path in shipped.items()
    ]
    local = [path for path in sorted(Path("suites").glob("*.toml")) if path.resolve() not in known]
    return rows + [
        [plain(path.stem), plain(f"xbench run {path}"), plain(describe_suite(path))] for path in local
    ]


def _make_row(registration: Registration) -> tuple[Text, Text, Text]:
    name = registration.name
    try:
        component = registration.load()
        description = plain(component.summary)
        if isinstance(component, Family):
            name += "/..."
    except XbenchError as error:
        description = plain(f"broken: {error.message}", style="red")
    return plain(name), plain(" and ".join(registration.distributions)), description
