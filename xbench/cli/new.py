"""`xbench new`: write a package with an optimizer, a model or a dataset that passes its own tests."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shlex
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from xbench.cli.options import KINDS_OF, What, user_path
from xbench.cli.output import shorten_path
from xbench.components.registry import Kind, find
from xbench.errors import XbenchError
from xbench.storage.paths import disk_errors
from xbench.text import escape_controls, format_value

EXAMPLES = """
Examples:

- `xbench new optimizer my-optimizer`
- `xbench new model my-model --dir ~/plugins`
- `xbench new dataset my-dataset`
"""

_TEMPLATES = Path(__file__).with_name("package_templates")
_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_MAX_NAME_CHARS = 60


@dataclass(frozen=True)
class _Package:
    """The names of a new package.

    Attributes:
        name: the name of the distribution, such as `my-optimizer`.
    """

    kind: Kind
    name: str

    @property
    def component(self) -> str:
        """The name of the component in suites: that of the package, without `xbench-`."""
        return self.name.removeprefix("xbench-")

    @property
    def module(self) -> str:
        return self.name.replace("-", "_")

    @property
    def class_name(self) -> str:
        return "".join(part.capitalize() for part in re.split("[-_]", self.component))

    def list_files(self) -> dict[str, str]:
        """Return the template of each file, by path."""
        files = {
            "pyproject.toml": "all/pyproject.toml",
            "README.md": f"{self.kind}/README.md",
            f"{self.module}/__init__.py": f"{self.kind}/init.py",
            f"tests/test_{self.module}.py": "all/test.py",
        }
        if self.kind == "optimizer":
            files[f"{self.module}/optimizer.py"] = "optimizer/optimizer.py"
        return dict(sorted(files.items()))

    def render(self, template: str) -> str:
        text = (_TEMPLATES / f"{template}.template").read_text(encoding="utf-8")
        return Template(text).substitute(
            kind=self.kind,
            name=self.name,
            component=self.component,
            module=self.module,
            class_name=self.class_name,
            xbench_version=version("xbench"),
        )


def new(
    what: Annotated[
        What, typer.Argument(metavar="KIND", help="optimizer, model or dataset", show_default=False)
    ],
    name: Annotated[
        str,
        typer.Argument(
            help="name of the package, such as my-optimizer; also that of the component", show_default=False
        ),
    ],
    folder: Annotated[
        Path,
        typer.Option(
            "--dir", parser=user_path("--dir"), metavar="DIR", help="folder to write the package in"
        ),
    ] = Path("."),
) -> None:
    """Write a package with an optimizer, a model or a dataset, to be replaced by your own.

    The package passes its tests as it is: `pip install -e NAME && pytest NAME`. Nothing is overwritten.

    Exit codes: 0 the package was written; 2 the name is not usable or the folder exists.
    """
    package = _Package(KINDS_OF[what], name)
    _check_name(package)
    place = folder / name
    if place.exists():
        raise XbenchError(
            f"{shorten_path(place)} exists, and is not overwritten",
            hint="choose another name, or another --dir",
        )
    rendered = {path: package.render(template) for path, template in package.list_files().items()}
    with disk_errors(f"{shorten_path(place)} cannot be written"):
        for path, text in rendered.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text(text, encoding="utf-8")
    shown = shlex.quote(escape_controls(shorten_path(place)))
    print(f"written: {', '.join(f'{shown}/{path}' for path in rendered)}")
    print(f"next: pip install -e {shown} && pytest {shown}")


def _check_name(package: _Package) -> None:
    """Check that a name can be that of a package, a module and a component, and that none of them exists.

    Raises:
        XbenchError: it cannot, or one does.
    """
    name = package.name
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME_CHARS or not package.component:
        raise XbenchError(
            f"{format_value(name)} cannot be the name of a package",
            hint="begin with a lower-case letter, and use lower-case letters, digits, and single hyphens or "
            "underscores",
        )
    class_name = package.class_name
    if not class_name.isidentifier() or keyword.iskeyword(class_name):
        raise XbenchError(
            f"'{name}' cannot be the name of a package: its class would be called {class_name}, which is not "
            "a name in Python",
            hint="choose another name, in which a word such as 'my' comes first",
        )
    if keyword.iskeyword(package.module) or package.module in sys.stdlib_module_names:
        raise XbenchError(
            f"'{name}' cannot be the name of a package: Python has a keyword or a module of this name",
            hint=f"choose another name, such as xbench-{name}",
        )
    taken = find(package.kind, package.component)
    if taken is not None:
        raise XbenchError(
            f"{package.kind} '{package.component}' is registered by {' and '.join(taken.distributions)}",
            hint="choose another name",
        )
    found = importlib.util.find_spec(package.module)
    if found is not None and found.origin is not None:  # a folder without code has no origin
        raise XbenchError(
            f"a module '{package.module}' can already be imported here", hint="choose another name"
        )
