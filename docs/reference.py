"""Write the references of suite keys, the plugin contract and commands, from the code and its docstrings.

Run `python docs/reference.py [--check]`.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import sys
from pathlib import Path
from typing import Any

import typer
import typer.cli
from docstring_parser import parse
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import xbench
from xbench.cli.app import app
from xbench.suite.schema import DatasetTable, Experiment, Header, OptimizerTable, Reference, Target, Tune
from xbench.suite.seeds import SeedTable
from xbench.training.settings import TrainingSettings

DOCS = Path(__file__).parent
START, END = "<!-- reference: written by docs/reference.py -->\n", "<!-- end of reference -->\n"

TABLES = (
    ("`[suite]`", Header, "Settings of the whole suite."),
    (
        "`seeds` as a table",
        SeedTable,
        "Parts of seeds that vary apart: each a number of seeds (counted from 0), or a list. Each cell runs "
        "once for each combination.",
    ),
    ("`[[experiment]]`", Experiment, "One comparison. It may also have the training settings below."),
    (
        "`[[experiment.optimizer]]`",
        OptimizerTable,
        "One column for each combination of values. It may also have the optimizer's own settings and the "
        "training settings below, which override the experiment's.",
    ),
    (
        "`dataset` of an experiment",
        DatasetTable,
        "It may also have the dataset's own settings. A bare name stands for a table with that `name`.",
    ),
    (
        "`[experiment.tune]`",
        Tune,
        "A search for the settings of each column ([tuning](tuning.md)). Exactly one of `trials`, `closures` "
        "and `time` is the budget of each column.",
    ),
    ("`[experiment.reference]`", Reference, "Results of earlier work, printed beside those of the run."),
    ("`target` of an experiment", Target, "A quality, and what each optimizer needs to reach it."),
    ("Training settings", TrainingSettings, "Keys of an experiment or of one of its optimizers."),
)


def suite_keys() -> str:
    """Return the keys of a suite as Markdown."""
    return "\n".join(section(title, model, about) for title, model, about in TABLES)


def plugin_contract() -> str:
    """Return the names that a plugin imports from `xbench` as Markdown."""
    public = [getattr(xbench, name) for name in xbench.__all__]
    return "\n".join(contract(found) for found in public if isinstance(found, type))


def contract(public: type) -> str:
    told = descriptions(public)
    about = parse(inspect.getdoc(public) or "").description or ""
    lines = [f"### `xbench.{public.__name__}`\n", f"{about}\n"]
    if dataclasses.is_dataclass(public):
        lines += ["| field | default | meaning |", "| --- | --- | --- |"]
        fields = dataclasses.fields(public)
        lines += [table_row(f"`{field.name}`", field_default(field), told[field.name]) for field in fields]
    return "\n".join(lines) + "\n"


def field_default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return f"`{field.default_factory()!r}`"
    if field.default is dataclasses.MISSING:
        return "required"
    return "a function" if callable(field.default) else f"`{field.default!r}`"


def table_row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def section(title: str, model: type[BaseModel], about: str) -> str:
    told = descriptions(model)
    properties = model.model_json_schema()["properties"]
    header = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    lines = [f"### {title}\n", f"{about}\n", *header]
    for name, field in model.model_fields.items():
        lines.append(table_row(f"`{name}`", value(properties[name], name), default(field), told[name]))
    return "\n".join(lines) + "\n"


def descriptions(documented: type) -> dict[str, str]:
    """Return the meaning of each field, from the docstrings of a class and its bases."""
    told: dict[str, str] = {}
    for base in reversed(documented.__mro__):
        for attribute in parse(base.__dict__.get("__doc__") or "").params:
            for name in attribute.arg_name.split(", "):
                text = " ".join((attribute.description or "").split())
                told[name] = text[:1].upper() + text[1:]
    return told


def value(schema: dict[str, Any], name: str) -> str:
    """Describe what a key may be, from its JSON schema."""
    if "anyOf" in schema:
        options = [value(option, name) for option in schema["anyOf"] if option.get("type") != "null"]
        return ", or ".join(dict.fromkeys(options))
    if "enum" in schema or "const" in schema:
        return ", ".join(f'`"{option}"`' for option in schema.get("enum") or [schema["const"]])
    kind = schema.get("type", "table" if "$ref" in schema else "any")
    if kind in ("integer", "number"):
        bounds = [
            f"{sign} {schema[bound]:,}"
            for bound, sign in (
                ("minimum", "≥"),
                ("exclusiveMinimum", ">"),
                ("maximum", "≤"),
                ("exclusiveMaximum", "<"),
            )
            if bound in schema
        ]
        return " ".join([kind, " and ".join(bounds)]).strip()
    if kind == "array":
        return f"list of: {value(schema['items'], name)}"
    return {"object": "table", "string": "text", "boolean": "`true`, `false`"}.get(kind, kind)


def default(field: FieldInfo) -> str:
    """Describe a field's default as TOML."""
    if field.is_required():
        return "required"
    chosen = field.get_default(call_default_factory=True)
    if chosen in (None, "", [], {}):
        return ""
    if isinstance(chosen, list):
        return f"`{chosen}`"
    if isinstance(chosen, bool):
        return f"`{str(chosen).lower()}`"
    return f"`{chosen:g}`" if isinstance(chosen, int | float) else f'`"{chosen}"`'


def commands() -> str:
    """Return the help of every command as Markdown."""
    command = typer.main.get_command(app)
    text = typer.cli.get_docs_for_click(obj=command, ctx=typer.Context(command), name="xbench")
    _, separator, rest = text.partition("\n## ")
    return (separator + rest).strip() + "\n"


PAGES = {"suites.md": suite_keys, "plugins.md": plugin_contract, "commands.md": commands}
# How help is laid out depends on the version of typer.
UNCHECKED = {"commands.md"}


def page(name: str) -> str:
    """Return a page with its reference as it should be."""
    before, rest = (DOCS / name).read_text(encoding="utf-8").split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n{PAGES[name]()}\n{END}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say whether the pages are up to date")
    check = parser.parse_args().check
    names = [name for name in PAGES if not (check and name in UNCHECKED)]
    stale = [name for name in names if page(name) != (DOCS / name).read_text(encoding="utf-8")]
    for name in stale:
        if check:
            print(f"docs/{name} is not up to date: run `python docs/reference.py`")
        else:
            (DOCS / name).write_text(page(name), encoding="utf-8")
    return bool(stale) and check


if __name__ == "__main__":
    sys.exit(main())
