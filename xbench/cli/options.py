"""Options shared by several commands."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from xbench.cli.output import FindingsFormat, Format
from xbench.components.registry import Kind
from xbench.errors import XbenchError
from xbench.storage.paths import expand_user
from xbench.text import format_value


class What(StrEnum):
    """Kinds of components."""

    MODEL = "model"
    OPTIMIZER = "optimizer"
    DATASET = "dataset"


KINDS_OF: dict[What, Kind] = {What.MODEL: "model", What.OPTIMIZER: "optimizer", What.DATASET: "dataset"}


def user_path(source: str) -> Callable[[str], Path]:
    """Return a parser of paths that expands a leading `~`, as a shell does only at the beginning of a word.

    Args:
        source: name of the option or argument, for messages.
    """

    def parse(value: str) -> Path:
        return expand_user(value, source)

    return parse


def _parse_code_folder(value: str) -> Path:
    folder = expand_user(value, "--allow-import")
    if not folder.is_dir():
        problem = "not a folder" if folder.exists() else "no such folder"
        raise XbenchError(
            f"--allow-import {format_value(value)}: {problem}", hint="give the folder that contains your code"
        )
    return folder.resolve()


Device = Annotated[str | None, typer.Option(help="device: auto, cpu, cuda or cuda:N")]
Results = Annotated[Path, typer.Option(parser=user_path("--out"), metavar="DIR", help="folder for results")]
AllowImport = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="DIR",
        parser=_parse_code_folder,
        help="allow module:attribute components from this folder (repeatable)",
    ),
]
ResultsForm = Annotated[Format, typer.Option("--format", help="output format of results")]
Baseline = Annotated[
    str | None, typer.Option(help="column that findings compare the others with", show_default=False)
]
FindingsForm = Annotated[FindingsFormat, typer.Option("--format", help="output format of findings")]
