"""`xbench plugins`: list the packages that register components, and check components."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from xbench.cli.activity import ActivityDisplay
from xbench.cli.interrupts import interruptible
from xbench.cli.options import KINDS_OF, AllowImport, FindingsForm, What
from xbench.cli.output import FindingsFormat, print_json, stdout_console, tolerate_closed_pipe
from xbench.components.registry import KINDS, registrations
from xbench.components.specs import Family, Spec
from xbench.errors import XbenchError
from xbench.report.layout import make_table, plain
from xbench.text import escape_controls, pluralize, shorten

if TYPE_CHECKING:
    from xbench.conformance.checks import Finding
    from xbench.conformance.common import Subject

EXAMPLES = """
Examples:

- `xbench plugins`
- `xbench plugins check adam`
- `xbench plugins check sgd --set momentum=0.9 --format json`
- `xbench plugins check my_optimizers:MyOptimizer --allow-import .`
"""

EXIT_FAILED = 1

_STYLES = {"pass": "green", "fail": "bold red", "fact": "", "not applicable": "dim"}

app = typer.Typer(
    help="List the packages that register components, or check that components keep to the contract.",
    epilog=EXAMPLES,
    invoke_without_command=True,
    rich_markup_mode="markdown",
)


@app.callback()
def plugins(context: typer.Context) -> None:
    """List the packages that register components, and say which components cannot be used.

    `xbench plugins check NAME` checks that a component keeps to the contract.
    """
    if context.invoked_subcommand is None:
        list_plugins()


@app.command(epilog=EXAMPLES)
def check(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME",
            help="models, optimizers, datasets or families; or module:attribute",
            show_default=False,
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="a setting of the components (repeatable)"),
    ] = None,
    partner: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="NAME",
            help="the dataset to check models on, or the model to check a dataset's task with",
            show_default=False,
        ),
    ] = "",
    kind: Annotated[
        What | None,
        typer.Option(
            help="their kind, if the names do not tell: model, optimizer or dataset", show_default=False
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="CHECK", help="run only this check (repeatable)")
    ] = None,
    allow_import: AllowImport = None,
    form: FindingsForm = FindingsFormat.TABLE,
) -> None:
    """Check that components keep to the plugin contract.

    Each component is trained for a few steps on small data, in child processes. A fact is worth knowing, but
    neither right nor wrong. Nothing is downloaded. A family stands for all of its members.

    Exit codes: 0 no check failed; 1 a check failed; 2 bad input; 130 interrupted.
    """
    from xbench.conformance.run import check as check_component
    from xbench.conformance.run import find_subjects

    params = dict(_parse_setting(setting) for setting in settings or [])
    dirs = [str(directory) for directory in allow_import or []]
    findings: list[Finding] = []
    with interruptible(lambda: "nothing was kept"):
        of_kind = None if kind is None else KINDS_OF[kind]
        subjects = [
            subject for name in names for subject in find_subjects(name, params, dirs, partner, of_kind)
        ]
        for subject in subjects:
            with ActivityDisplay() as display:
                display.begin(f"checking {subject.kind} {subject.name}")
                found = check_component(subject, only or ())
            findings += found
            if form is FindingsFormat.TABLE:
                with tolerate_closed_pipe():
                    _print_table(subject, found)
    with tolerate_closed_pipe():
        _print_counts(findings, len(subjects), form)
    if any(finding.outcome == "fail" for finding in findings):
        raise typer.Exit(EXIT_FAILED)


def _parse_setting(setting: str) -> tuple[str, Any]:
    """Parse `KEY=VALUE`, whose value is a TOML value or a string."""
    from xbench.suite.overrides import parse_value  # it imports pydantic, which `--help` need not wait for

    key, separator, text = setting.partition("=")
    argument = f"--set {shorten(escape_controls(setting))}"
    if not separator or not key:
        raise XbenchError(f"{argument}: not KEY=VALUE", hint="write KEY=VALUE, such as --set lr=0.1")
    return key, parse_value(text, argument)


def _print_table(subject: Subject, findings: list[Finding]) -> None:
    rows = [
        [plain(finding.check), plain(finding.outcome, _STYLES[finding.outcome]), plain(finding.text)]
        for finding in findings
    ]
    title = plain(f"{subject.kind} {subject.name}")
    stdout_console().print(make_table(title, ["check", "outcome", "finding"], rows))


def _print_counts(findings: list[Finding], components: int, form: FindingsFormat) -> None:
    """Print the number of findings of each outcome after the tables; as JSON, print all findings."""
    counts = Counter(finding.outcome for finding in findings)
    if form is FindingsFormat.JSON:
        print_json({"findings": list(map(_describe, findings)), "failed": counts["fail"]})
        return
    print(
        f"{pluralize(components, 'component')}: {counts['pass']} passed, {counts['fail']} failed, "
        f"{pluralize(counts['fact'], 'fact')}, {counts['not applicable']} not applicable"
    )


def _describe(finding: Finding) -> dict[str, Any]:
    keys = ("kind", "component", "check", "outcome", "text", "values")
    return {key: getattr(finding, key) for key in keys}


def list_plugins() -> None:
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
