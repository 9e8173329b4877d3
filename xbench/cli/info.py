"""`xbench info`: show a component and its settings."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from xbench.cli.output import stdout_console, tolerate_closed_pipe
from xbench.components.registry import KINDS, Registration, find, registrations, suggest_name
from xbench.components.specs import Family, ModelSpec, OptimizerSpec, Spec
from xbench.errors import XbenchError
from xbench.report.layout import make_table, plain

EXAMPLES = """
Examples:

- `xbench info lbfgs`
- `xbench info chest-xray`
- `xbench info torchvision/resnet18`
"""


def info(
    name: Annotated[
        str, typer.Argument(help="name of a model, optimizer or dataset, or of a family", show_default=False)
    ],
) -> None:
    """Show a component's description and requirements, and its settings with their defaults."""
    found = [registration for kind in KINDS if (registration := find(kind, name))]
    if not found:
        names = [registered for kind in KINDS for registered in registrations(kind)]
        guess = suggest_name(name.partition("/")[0], names)
        raise XbenchError(f"unknown component '{name}'.{guess}", hint="`xbench list` shows all names")
    with tolerate_closed_pipe():
        _print_components(name, found)


def _print_components(name: str, found: list[Registration]) -> None:
    console = stdout_console()
    for registration in found:
        component = registration.load()
        if not isinstance(component, Family) or name != registration.name:
            component = registration.load_spec(name)
        console.print(plain(f"{registration.kind} {name}", style="bold"), plain(component.summary))
        origin = f"from {registration.distributions[0]}"
        reference = [component.reference] if component.reference else []
        if isinstance(component, Family):
            console.print(plain("; ".join([origin, *reference])))
            console.print(plain(_list_members(name, component), keep="\n"))
        else:
            console.print(plain("; ".join([origin, *_describe_needs(component), *reference])))
            console.print(_make_settings_table(component))


def _list_members(name: str, family: Family) -> str:
    if family.members is None:
        return f"a family: `xbench info {name}/NAME` shows a member"
    members = [f"{name}/{member}" for member in family.members()]
    return "\n".join([f"a family of {len(members)}:", *members])


def _make_settings_table(spec: Spec) -> Table:
    from xbench.components.settings import (
        settings_of,  # it imports pydantic, which `--help` need not wait for
    )

    settings = settings_of(spec)
    rows = dict.fromkeys(settings.required, "(required)")
    rows |= {setting: _format_toml(default) for setting, default in settings.defaults.items()}
    if settings.is_open:
        rows["..."] = "other settings are passed on"
    return make_table("settings", ["name", "default"], [map(plain, row) for row in rows.items()])


def _describe_needs(spec: Spec) -> list[str]:
    if isinstance(spec, OptimizerSpec):
        needs = ["takes 2-D parameters only"] if spec.parameters == "matrices" else []
        return [*needs, f"takes {spec.gradients} gradients"]
    if isinstance(spec, ModelSpec) and spec.input_shape is not None:
        return [f"takes images of {' x '.join(map(str, spec.input_shape))}"]
    return []


def _format_toml(default: object) -> str:
    """Format a default as it would be written in a suite."""
    if default is None:
        return "(none)"
    if default == "":
        return '""'
    if isinstance(default, bool):
        return str(default).lower()
    return str(list(default)) if isinstance(default, tuple) else str(default)
