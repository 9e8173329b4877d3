"""`xbench info`: show a component and its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from xbench.cli.options import AllowImport
from xbench.cli.output import stdout_console, tolerate_closed_pipe
from xbench.components.facts import TensorFacts
from xbench.components.registry import (
    KINDS,
    Registration,
    find,
    import_reference,
    make_spec,
    suggest_component,
)
from xbench.components.specs import DatasetSpec, Family, ModelSpec, OptimizerSpec, Spec
from xbench.components.tasks import Problem
from xbench.errors import XbenchError
from xbench.report.layout import make_table, plain
from xbench.suite.shipped import shipped_suites
from xbench.text import quote_some

EXAMPLES = """
Examples:

- `xbench info lbfgs`
- `xbench info chest-xray`
- `xbench info torchvision/resnet18`
- `xbench info my_models:tiny --allow-import .`
"""


def info(
    name: Annotated[
        str,
        typer.Argument(
            help="name of a model, optimizer or dataset, or of a family; or module:attribute",
            show_default=False,
        ),
    ],
    allow_import: AllowImport = None,
) -> None:
    """Show a component's description and requirements, and its settings with their defaults.

    For a dataset with its default settings that is on this machine, show its rows and its task as well. Of a
    problem, the model and the dataset are shown.
    """
    if ":" in name:
        _show_imported(name, [str(directory) for directory in allow_import or []])
        return
    found = [registration for kind in KINDS if (registration := find(kind, name))]
    if not found and name in shipped_suites():
        raise XbenchError(
            f"'{name}' is a suite, not a component",
            hint=f"`xbench run {name} --dry-run` prints its cells, and `xbench run {name}` runs them",
        )
    if not found:
        raise XbenchError(
            f"unknown component '{name}'.{suggest_component(name, KINDS)}",
            hint="`xbench list` shows all names",
        )
    with tolerate_closed_pipe():
        _print_components(name, found)


def _print_components(name: str, found: list[Registration]) -> None:
    for registration in found:
        component = registration.load()
        if not isinstance(component, Family) or name != registration.name:
            component = registration.load_spec(name)
        origin = f"from {registration.distributions[0]}"
        if isinstance(component, Family):
            console = _print_heading(registration.kind, name, component, [origin])
            console.print(plain(_list_members(name, component), keep="\n"))
        else:
            _print_spec(registration.kind, name, component, origin)
            if isinstance(component, DatasetSpec):
                stdout_console().print(_make_data_table(name, component))


def _print_heading(kind: str, name: str, component: Spec | Family, facts: list[str]) -> Console:
    console = stdout_console()
    summary = [plain(component.summary)] if component.summary else []
    console.print(plain(f"{kind} {name}", style="bold"), *summary)
    reference = [component.reference] if component.reference else []
    console.print(plain("; ".join([*facts, *reference])))
    return console


def _print_spec(kind: str, name: str, spec: Spec, origin: str) -> None:
    console = _print_heading(kind, name, spec, [origin, *_describe_needs(spec)])
    console.print(_make_settings_table(spec))


def _show_imported(name: str, import_dirs: list[str]) -> None:
    """Show what a `module:attribute` is: a spec, a problem, or a factory."""
    from xbench.components.kinds import list_kinds  # it imports pydantic, as in `_make_settings_table`

    found = import_reference("component", name, import_dirs)
    parts = {kind: make_spec(kind, found, f"{kind} '{name}'", "") for kind in list_kinds(name, found)}
    with tolerate_closed_pipe():
        for kind, spec in parts.items():
            shown = kind if isinstance(found, Spec | Problem) else "factory"  # the kind is a guess
            _print_spec(shown, name, spec, f"imported from {name.partition(':')[0]}")


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


def _make_data_table(name: str, spec: DatasetSpec) -> Table | Text:
    """Describe the rows and the task of a dataset with its default settings, by asking a child process.

    Returns:
        A sentence instead of a table if the dataset is not on this machine, or has required settings.
    """
    from xbench.components.settings import settings_of
    from xbench.isolation.ask import ask
    from xbench.planning.datasets import describe_dataset
    from xbench.training.settings import Choice

    required = settings_of(spec).required
    if required:
        return plain(f"its rows depend on {quote_some(required)}")
    try:
        facts = ask(describe_dataset, Choice(name, {}), [])
    except XbenchError as error:
        return plain(f"its rows are not known here: {error.message}")
    counts = dict.fromkeys(("train", "validation", "test"), 0)
    for part, count in facts.counts.items():  # by split, and by class where it is known
        counts[part.partition("/")[0]] += count
    rows = {
        "rows": ", ".join(f"{split} {count:,}" for split, count in counts.items() if count),
        "a row": _format_row(facts.facts.row),
        "output": f"{facts.facts.output.kind}: {facts.facts.output.size:,}" if facts.facts.output else "",
        "loss": next(m.method for m in facts.task.metrics if m.name.endswith("_loss")),
        "metrics": ", ".join(metric.title for metric in facts.task.metrics),
    }
    shown = [[plain(key), plain(text)] for key, text in rows.items() if text]
    return make_table("data, with these settings", ["what", "value"], shown)


def _format_row(row: Any) -> str:
    """Format the structure of a row, with the dtype and shape of each tensor."""
    if isinstance(row, TensorFacts):
        return f"{row.dtype} {row.shape}"
    if isinstance(row, Mapping):
        return f"{{{', '.join(f'{key}: {_format_row(part)}' for key, part in row.items())}}}"
    if isinstance(row, tuple | list):
        return f"({', '.join(map(_format_row, row))})"
    return str(row)


def _describe_needs(spec: Spec) -> list[str]:
    if isinstance(spec, OptimizerSpec):
        needs = [f"takes {spec.gradients} gradients"]
        if spec.parameters == "matrices":
            kernels = " and kernels" if spec.flattens_kernels else ""
            needs.append(f"updates hidden matrices{kernels}; `rest` updates the other parameters")
        if spec.backward != "plain":
            needs.append(f"needs a backward pass of its own ({spec.backward}), and so whole batches")
        if spec.search_space:
            searched = (f"{name} from {values}" for name, values in spec.search_space.items())
            needs.append(f"`tune` searches {' and '.join(searched)}")
        if spec.needs_loss:
            needs.append("needs the loss of each step, so it cannot share a model with another optimizer")
        return needs
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
