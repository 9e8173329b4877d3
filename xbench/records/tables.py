"""Write and read Parquet files: a reader finds a whole file or none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xbench.storage.atomic import atomic_replace, make_folder, naming_file, read_regular, sync_file

if TYPE_CHECKING:
    import pyarrow


def write_table(path: Path, table: pyarrow.Table) -> None:
    """Write a table to a temporary file, fsync it, and rename it. The caller must be the only writer.

    Raises:
        OSError: the file cannot be written; an older one stays as it was.
    """
    import pyarrow.parquet

    make_folder(path.parent)
    aside = path.with_suffix(".partial")
    with naming_file(aside):
        pyarrow.parquet.write_table(table, aside, write_page_checksum=True)
    sync_file(aside)
    atomic_replace(aside, path)


def read_table(path: Path) -> pyarrow.Table:
    """Read a table and verify its checksums.

    Raises:
        OSError, ValueError: the file is missing or damaged; pyarrow's errors are of these kinds.
    """
    import pyarrow.parquet

    content = pyarrow.BufferReader(read_regular(path))
    return pyarrow.parquet.read_table(content, page_checksum_verification=True)
