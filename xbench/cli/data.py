"""`xbench data`: which datasets are here, getting one, and checking its files."""

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
    print_json,
    reader_may_leave,
    stderr_console,
    stdout_console,
    tell_where_cache_is,
)
from xbench.components.registry import load, registrations
from xbench.components.specs import DatasetSpec
from xbench.errors import DataNotFound, XbenchError
from xbench.report.layout import cell, make_table, print_line
from xbench.text import escape_controls
from xbench.units import format_bytes

if TYPE_CHECKING:
    from xbench.data.inventory import FindRoot, Inventory, Verdict

EXAMPLES = """
Examples:

- `xbench data status`
- `xbench data fetch chest-xray`
- `xbench data fetch chest-xray --from archive.zip`
- `xbench data verify chest-xray --format json`
"""

EXIT_NOT_RIGHT = 1

# Names of files in one list of findings, before it only says how many more there are.
_MAX_NAMES = 10

app = typer.Typer(
    help="See which datasets are on this machine, get one, check its files.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Name = Annotated[str, typer.Argument(help="a dataset, as `xbench list datasets` has it", show_default=False)]


@app.command(epilog=EXAMPLES)
def status(
    name: Annotated[
        str | None, typer.Argument(help="one dataset; all if not given", show_default=False)
    ] = None,
    form: FindingsForm = FindingsFormat.TABLE,
) -> None:
    """Show where each dataset is on this machine, what is missing of it, or how to get it."""
    tell_where_cache_is()
    names = [name] if name else list(registrations("dataset"))
    rows = []
    with ActivityDisplay() as display:
        for item in names:
            display.begin(f"listing the files of {item}")
            try:
                rows.append(_status_row(item, _spec(item)))
            except XbenchError as error:
                if name:
                    raise
                rows.append({"dataset": item, "state": "broken", "how_to_get": error.message})
            except Exception as error:  # a plugin's hook may raise anything
                why = f"{type(error).__name__}: {error}"
                rows.append({"dataset": item, "state": "broken", "how_to_get": why})
    with reader_may_leave():
        if form is FindingsFormat.JSON:
            print_json({"datasets": rows})
        else:
            stdout_console().print(_status_table(rows))


@app.command(epilog=EXAMPLES)
def fetch(
    name: Name,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from",
            parser=user_path("--from"),
            metavar="FILE.zip",
            help="unpack this file, download nothing",
        ),
    ] = None,
    url: Annotated[str, typer.Option(help="of the archive, if it is published elsewhere")] = "",
    sha256: Annotated[str, typer.Option(metavar="HEX", help="of the archive at --url")] = "",
    force: Annotated[bool, typer.Option("--force", help="fetch again, and replace what is there")] = False,
) -> None:
    """Download a dataset's archive into the cache and unpack it, whole or not at all.

    Exit codes: 0 it is there; 2 it could not be had; 130 interrupted.
    """
    # Imported here: the other commands need none of it, and answer at once.
    from xbench.data.fetch import destination, fetch_from
    from xbench.data.fetch import fetch as fetch_archive
    from xbench.data.inventory import published_source, take_inventory

    tell_where_cache_is()
    source, find_root = published_source(name, _spec(name))
    if bool(url) != bool(sha256):
        raise XbenchError(
            "--url and --sha256 go together", hint="an archive is only taken if its hash is known"
        )
    if sha256 and len(sha256) != 64:
        raise XbenchError(
            f"--sha256 {sha256}: a sha256 has 64 digits, not {len(sha256)}",
            hint="`sha256sum FILE` prints all of them",
        )
    if from_ and url:
        raise XbenchError("--from and --url name two archives", hint="give one of them")
    place = destination(source)
    with interruptible(lambda: f"nothing of {name} was kept"), ActivityDisplay() as display:

        def show(stage: str, done_bytes: int, total_bytes: int) -> None:
            display.report(f"{name}: {stage}", done_bytes, total_bytes, "bytes")

        if not force:
            display.begin(f"{name}: listing what is here")
            for root in dict.fromkeys([*_find_roots(find_root), place]):
                inventory = take_inventory(root, source)
                if inventory.is_complete:
                    display.say(f"{name} is already here and complete; nothing was done")
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
            f"note: this is another archive than the published one (sha256 {fetched.sha256}, not "
            f"{source.sha256}); it is undamaged, and holds as many images in each folder",
            "yellow",
        )
    _print_place(name, find_root, fetched.inventory)


@app.command(epilog=EXAMPLES)
def verify(name: Name, form: FindingsForm = FindingsFormat.TABLE) -> None:
    """Read every file of a dataset, and compare it with what was unpacked (or, where that is not known, see
    whether it is an image).

    Exit codes: 0 complete and undamaged; 1 not so; 2 not on this machine; 130 interrupted.
    """
    from xbench.data.inventory import published_source
    from xbench.data.inventory import verify as look_at_files

    tell_where_cache_is()
    source, find_root = published_source(name, _spec(name))
    root = find_root()
    with interruptible(lambda: "not all files were read"), ActivityDisplay() as display:
        display.begin(f"listing the files of {name}")
        reading = f"reading the files of {name}"
        verdict = look_at_files(root, source, lambda *at: display.report(reading, *at))
    with reader_may_leave():
        if form is FindingsFormat.JSON:
            print_json(_verdict_document(name, verdict))
        else:
            _print_verdict(name, verdict)
    if not verdict.is_right:
        raise typer.Exit(EXIT_NOT_RIGHT)


def _spec(name: str) -> DatasetSpec:
    spec = load("dataset", name)
    assert isinstance(spec, DatasetSpec)  # the registry has checked its kind
    return spec


def _find_roots(find_root: FindRoot) -> list[Path]:
    """Where a suite would find the dataset: one folder, or none."""
    try:
        return [find_root()]
    except DataNotFound:
        return []


def _print_place(name: str, find_root: FindRoot, inventory: Inventory) -> None:
    for root in _find_roots(find_root):
        if root != inventory.root:
            warning = f"warning: suites do not use this one, as {name} is also in {root}"
            print_line(stderr_console(), warning, "bold yellow")
    _print_inventory(inventory)


def _status_row(name: str, spec: DatasetSpec) -> dict[str, Any]:
    from xbench.data.inventory import presence

    found = presence(name, spec)
    row: dict[str, Any] = {"dataset": name, "state": "not here", "how_to_get": found.how_to_get}
    if found.inventory is not None:
        state = "complete" if found.inventory.is_complete else "incomplete"
        row |= {"state": state, **_inventory_document(found.inventory)}
    elif spec.source is None:
        row["state"] = "made by xbench" if spec.stand_in else "yours"
    if spec.source is not None:
        row["page"] = spec.source.page
        row["licence"] = spec.source.licence
    return row


def _status_table(rows: list[dict[str, Any]]) -> Table:
    table = make_table("datasets", ["name", "state", "where", "what is there, or how to get it"])
    for row in rows:
        what = _count_images(row["images"]) if "images" in row else row["how_to_get"]
        if row["state"] == "made by xbench":
            what = "needs nothing"
        if row.get("shortfall"):
            what += f"; {row['shortfall']}"
        if row["state"] in ("incomplete", "not here"):
            what += f"\n{row['page']}"
        cells = (row["dataset"], row["state"], row.get("root", "-"), what)
        table.add_row(
            *(cell(text, keep="\n") for text in cells), style="red" if row["state"] == "broken" else ""
        )
    return table


def _inventory_document(inventory: Inventory) -> dict[str, Any]:
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


def _verdict_document(name: str, verdict: Verdict) -> dict[str, Any]:
    document = {"dataset": name, "right": verdict.is_right, **_inventory_document(verdict.inventory)}
    return document | {key: value for key, value in vars(verdict).items() if key != "inventory"}


def _print_verdict(name: str, verdict: Verdict) -> None:
    print(f"{name}: {'complete and undamaged' if verdict.is_right else 'not as it should be'}")
    _print_inventory(verdict.inventory)
    if verdict.inventory.shortfall:
        print(verdict.inventory.shortfall)
    if verdict.by_hash:
        print(f"{verdict.checked:,} files compared with their hashes when they were unpacked")
    else:
        print(f"{verdict.checked:,} images decoded; hashes are not known, as xbench did not unpack them")
    findings = {
        "missing": verdict.missing_files,
        "changed": verdict.changed_files,
        "not of the archive": verdict.extra_files,
        "unreadable": tuple(f"{file}: {why}" for file, why in verdict.unreadable_files.items()),
    }
    for what, names in findings.items():
        if names:
            print(f"{len(names):,} {what}:")
            print(*(f"  {escape_controls(line)}" for line in names[:_MAX_NAMES]), sep="\n")
        if len(names) > _MAX_NAMES:
            print(f"  and {len(names) - _MAX_NAMES:,} more")
