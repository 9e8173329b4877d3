"""Write the reference of suite keys into `docs/suites.md`, from the schema and its docstrings:

python docs/reference.py [--check]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from docstring_parser import parse
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from xbench.suite.schema import DatasetTable, Experiment, Header, OptimizerTable, Reference
from xbench.training.settings import TrainingSettings

PAGE = Path(__file__).with_name("suites.md")
START, END = "<!-- reference: written by docs/reference.py -->\n", "<!-- end of reference -->\n"

TABLES = (
    ("`[suite]`", Header, "The whole suite."),
    ("`[[experiment]]`", Experiment, "One comparison. All training settings below are keys of it, too."),
    (
        "`[[experiment.optimizer]]`",
        OptimizerTable,
        "A column, or one for each combination of values. Its keys are the optimizer's own settings and all "
        "training settings, which then replace the experiment's.",
    ),
    (
        "`dataset` of an experiment",
        DatasetTable,
        "The dataset's own settings are keys of it. A bare name stands for a table with that `name`.",
    ),
    ("`[experiment.reference]`", Reference, "Figures of an earlier work, printed beside those of the run."),
    ("Training settings", TrainingSettings, "Keys of an experiment or of one of its optimizers."),
)


def reference() -> str:
    """Return the reference as Markdown."""
    return "\n".join(section(title, model, about) for title, model, about in TABLES)


def section(title: str, model: type[BaseModel], about: str) -> str:
    told = descriptions(model)
    properties = model.model_json_schema()["properties"]
    header = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    lines = [f"### {title}\n", f"{about}\n", *header]
    for name, field in model.model_fields.items():
        cells = (f"`{name}`", value(properties[name], name), default(field), told[name])
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return the meaning of each field, from the docstrings of a model and its bases."""
    told: dict[str, str] = {}
    for base in reversed(model.__mro__):
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
    if isinstance(chosen, bool):
        return f"`{str(chosen).lower()}`"
    return f"`{chosen:g}`" if isinstance(chosen, int | float) else f'`"{chosen}"`'


def page() -> str:
    """Return the page with the reference as it should be."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n{reference()}\n{END}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say whether the page is up to date")
    wanted = page()
    if parser.parse_args().check:
        return wanted != PAGE.read_text(encoding="utf-8")
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
