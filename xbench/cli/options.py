"""Options that more than one command has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N")]
AllowImport = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="DIR",
        exists=True,
        file_okay=False,
        resolve_path=True,
        help="allow module:attribute components from this folder (repeatable)",
    ),
]
