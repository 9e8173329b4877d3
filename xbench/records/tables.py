"""Write and read Parquet files: a reader finds a whole file or none."""

from __future__ import annotations

import zlib
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


def read_table(path: Path, crc32: int | None = None) -> pyarrow.Table:
    """Read a table and verify its checksums.

    Args:
        crc32: checksum of the whole file, as a record has it. Without it, damage to the names and types of
            columns may pass unnoticed: Parquet has checksums of the values alone.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: the file is damaged.
    """
    import pyarrow.parquet

    content = pyarrow.BufferReader(read_verified(path, crc32))
    try:
        return pyarrow.parquet.read_table(content, page_checksum_verification=True)
    except (OSError, pyarrow.ArrowException) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def read_verified(path: Path, crc32: int | None) -> bytes:
    """Read a file and compare its checksum with the recorded one, if there is one.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: the checksum differs.
    """
    content = read_regular(path)
    if crc32 is not None and zlib.crc32(content) != crc32:
        raise ValueError(f"{path} is damaged: its checksum is not the one in the record")
    return content
