"""`xbench data`: list the datasets on this machine, fetch one, and verify its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from xbench.cli.activity import ActivityDisplay
from xbench.cli.interrupts import interruptible
from xbench.cli.options import FindingsForm, user_path
from xbench.cli.output import (
    FindingsFormat,
    print_cache_note,
    print_json,
    stderr_console,
    stdout_console,
    tolerate_closed_pipe,
)
from xbench.cli.verdict import compare_images, describe_near_copies, print_findings, print_near_copies
from xbench.components.registry import load, registrations
from xbench.components.specs import DatasetSpec
from xbench.errors import DataNotFound, XbenchError
from xbench.report.layout import cell, make_table, print_line
from xbench.text import escape_controls
from xbench.units import format_bytes

if TYPE_CHECKING:
    from xbench.data.inventory import FindRoot, Inventory, Verdict
    from xbench.data.near_copies import NearCopies

EXAMPLES = """
Examples:

- `xbench data status`
- `xbench data fetch chest-xray`
- `xbench data fetch chest-xray --from archive.zip`
- `xbench data verify chest-xray --format json`
"""

EXIT_DAMAGED = 1

app = typer.Typer(
    help="Show which datasets are on this machine, fetch one, or verify its files.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Name = Annotated[str, typer.Argument(help="a dataset from `xbench list datasets`", show_default=False)]


@app.command(epilog=EXAMPLES)
def status(
    name: Annotated[
        str | None, typer.Argument(help="a dataset; all datasets by default", show_default=False)
    ] = None,
    form: FindingsForm = FindingsFormat.TABLE,
) -> None:
    """Show where each dataset is on this machine, which files are missing, or how to get it."""
    print_cache_note()
    names = [name] if name else list(registrations("dataset"))
    rows = []
    with ActivityDisplay() as display:
        for item in names:
            display.begin(f"listing the files of {item}")
            try:
                rows.append(_make_status_row(item, _load_spec(item)))
            except XbenchError as error:
                if name:
                    raise
                rows.append({"dataset": item, "state": "broken", "how_to_get": error.message})
            except Exception as error:  # a plugin's hook may raise anything
                problem = f"{type(error).__name__}: {error}"
                rows.append({"dataset": item, "state": "broken", "how_to_get": problem})
    with tolerate_closed_pipe():
        if form is FindingsFormat.JSON:
            print_json({"datasets": rows})
        else:
            stdout_console().print(_make_status_table(rows))


@app.command(epilog=EXAMPLES)
def fetch(
    name: Name,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from",
            parser=user_path("--from"),
            metavar="FILE.zip",
            help="unpack this file instead of downloading",
        ),
    ] = None,
    url: Annotated[str, typer.Option(help="URL of the archive, if it is published elsewhere")] = "",
    sha256: Annotated[str, typer.Option(metavar="HEX", help="SHA-256 of the archive at --url")] = "",
    force: Annotated[bool, typer.Option("--force", help="fetch again and replace existing files")] = False,
) -> None:
    """Download a dataset's archive into the cache and unpack it, completely or not at all.

    Exit codes: 0 the dataset is available; 2 it could not be fetched; 130 interrupted.
    """
    # Imported here, so that other commands start quickly.
    from xbench.data.fetch import destination, fetch_from
    from xbench.data.fetch import fetch as fetch_archive
    from xbench.data.inventory import published_source, take_inventory

    print_cache_note()
    source, find_root = published_source(name, _load_spec(name))
    if bool(url) != bool(sha256):
        raise XbenchError(
            "--url and --sha256 must be given together",
            hint="an archive is only accepted if its hash is known",
        )
    if sha256 and len(sha256) != 64:
        raise XbenchError(
            f"--sha256 {sha256}: a SHA-256 has 64 digits, got {len(sha256)}",
            hint="`sha256sum FILE` prints all of them",
        )
    if from_ and url:
        raise XbenchError("--from and --url name different archives", hint="give only one of them")
    place = destination(source)
    with interruptible(lambda: f"nothing of {name} was kept"), ActivityDisplay() as display:

        def show(stage: str, done_bytes: int, total_bytes: int) -> None:
            display.report(f"{name}: {stage}", done_bytes, total_bytes, "bytes")

        if not force:
            display.begin(f"{name}: listing existing files")
            for root in dict.fromkeys([*_find_roots(find_root), place]):
                inventory = take_inventory(root, source)
                if inventory.is_complete:
                    display.say(f"{name} is already complete; nothing was done")
                    _print_place(name, find_root, inventory)
                    return
        if from_:
            fetched = fetch_from(source, from_, show, force)
        else:
            display.say(f"{name}: {source.licence}")
            display.say(f"downloading {url or f'{format_bytes(source.size_bytes)} from {source.url}'}")
            display.begin(f"{name}: waiting for the server")
            fetched = fetch_archive(source, show, url, sha256, force)
    if not fetched.is_published:
        print_line(
            stderr_console(),
            f"note: this is not the published archive (sha256 {fetched.sha256}, not {source.sha256}), "
            "but it is undamaged and has the same number of images in each folder",
            "yellow",
        )
    _print_place(name, find_root, fetched.inventory)


@app.command(epilog=EXAMPLES)
def verify(name: Name, form: FindingsForm = FindingsFormat.TABLE) -> None:
    """Read every file of a dataset and compare its hash with that of the unpacked file. If the hashes are not
    known, check that every file is an image. Then decode the images, and look for near-duplicates: images
    that look alike across train and test, across classes, or across groups such as patients.

    Exit codes: 0 complete and undamaged; 1 incomplete or damaged; 2 not on this machine; 130 interrupted.
    """
    from xbench.data.inventory import published_source
    from xbench.data.inventory import verify as verify_files

    print_cache_note()
    source, find_root = published_source(name, _load_spec(name))
    root = find_root()
    with interruptible(lambda: "not all files were read"), ActivityDisplay() as display:
        display.begin(f"listing the files of {name}")
        reading = f"reading the files of {name}"
        verdict = verify_files(root, source, lambda *at: display.report(reading, *at))
        near = compare_images(name, display)
    with tolerate_closed_pipe():
        if form is FindingsFormat.JSON:
            print_json(_describe_verdict(name, verdict, near))
        else:
            _print_verdict(name, verdict, near)
    if not verdict.is_right:
        raise typer.Exit(EXIT_DAMAGED)


def _load_spec(name: str) -> DatasetSpec:
    spec = load("dataset", name)
    assert isinstance(spec, DatasetSpec)  # the registry has checked its kind
    return spec


def _find_roots(find_root: FindRoot) -> list[Path]:
    """Return the folder in which a suite would find the dataset, if any."""
    try:
        return [find_root()]
    except DataNotFound:
        return []


def _print_place(name: str, find_root: FindRoot, inventory: Inventory) -> None:
    for root in _find_roots(find_root):
        if root != inventory.root:
            warning = f"warning: suites do not use this copy, because {name} is also in {root}"
            print_line(stderr_console(), warning, "bold yellow")
    _print_inventory(inventory)


def _make_status_row(name: str, spec: DatasetSpec) -> dict[str, Any]:
    from xbench.data.inventory import presence

    found = presence(name, spec)
    row: dict[str, Any] = {"dataset": name, "state": "not here", "how_to_get": found.how_to_get}
    if found.inventory is not None:
        state = "complete" if found.inventory.is_complete else "incomplete"
        row |= {"state": state, **_describe_inventory(found.inventory)}
    elif spec.source is None:
        row["state"] = "made by xbench" if spec.stand_in else "yours"
    if spec.source is not None:
        row["page"] = spec.source.page
        row["licence"] = spec.source.licence
    return row


def _make_status_table(rows: list[dict[str, Any]]) -> Table:
    table = make_table("datasets", ["name", "state", "folder", "contents, or how to get it"])
    for row in rows:
        text = _count_images(row["images"]) if "images" in row else row["how_to_get"]
        if row["state"] == "made by xbench":
            text = "needs no files"
        if row.get("shortfall"):
            text += f"; {row['shortfall']}"
        if row["state"] in ("incomplete", "not here"):
            text += f"\n{row['page']}"
        cells = (row["dataset"], row["state"], row.get("root", "-"), text)
        table.add_row(
            *(cell(item, keep="\n") for item in cells), style="red" if row["state"] == "broken" else ""
        )
    return table


def _describe_inventory(inventory: Inventory) -> dict[str, Any]:
    return {
        "root": str(inventory.root),
        "complete": inventory.is_complete,
        "images": inventory.counts,
        "missing": inventory.missing,
        "shortfall": inventory.shortfall,
    }


def _count_images(images: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {folder}" for folder, count in images.items()) or "no images"


def _print_inventory(inventory: Inventory) -> None:
    print(escape_controls(str(inventory.root)))
    print(escape_controls(_count_images(inventory.counts)))


def _describe_verdict(name: str, verdict: Verdict, near: NearCopies) -> dict[str, Any]:
    document = {"dataset": name, "right": verdict.is_right, **_describe_inventory(verdict.inventory)}
    document |= {key: value for key, value in vars(verdict).items() if key != "inventory"}
    return document | describe_near_copies(near)


def _print_verdict(name: str, verdict: Verdict, near: NearCopies) -> None:
    print(f"{name}: {'complete and undamaged' if verdict.is_right else 'incomplete or damaged'}")
    _print_inventory(verdict.inventory)
    if verdict.inventory.shortfall:
        print(verdict.inventory.shortfall)
    print_findings(verdict)
    print_near_copies(near)
