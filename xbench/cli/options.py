"""Options that more than one command has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from xbench.cli.output import FindingsFormat, Format
from xbench.errors import XbenchError
from xbench.storage.paths import expand_user
from xbench.text import format_value


def user_path(source: str) -> Callable[[str], Path]:
    """Return a parser of paths that expands a leading `~`, as a shell does only at the beginning of a word.

    Args:
        source: the option or argument, for messages.
    """

    def path(value: str) -> Path:
        return expand_user(value, source)

    return path


def _folder_of_code(value: str) -> Path:
    folder = expand_user(value, "--allow-import")
    if not folder.is_dir():
        problem = "not a folder" if folder.exists() else "no such folder"
        raise XbenchError(
            f"--allow-import {format_value(value)}: {problem}", hint="name the folder your code is in"
        )
    return folder.resolve()


Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N")]
Results = Annotated[Path, typer.Option(parser=user_path("--out"), metavar="DIR", help="folder for results")]
AllowImport = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="DIR",
        parser=_folder_of_code,
        help="allow module:attribute components from this folder (repeatable)",
    ),
]
ResultsForm = Annotated[Format, typer.Option("--format", help="how results are printed")]
FindingsForm = Annotated[FindingsFormat, typer.Option("--format", help="how findings are printed")]
