"""Write Parquet files atomically, and read them with verified checksums."""

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
        OSError: the file cannot be written; an existing one is left unchanged.
    """
    import pyarrow.parquet

    make_folder(path.parent)
    temporary = path.with_suffix(".partial")
    with naming_file(temporary):
        pyarrow.parquet.write_table(table, temporary, write_page_checksum=True)
    sync_file(temporary)
    atomic_replace(temporary, path)


def read_table(path: Path, crc32: int | None = None) -> pyarrow.Table:
    """Read a table and verify its checksums.

    Args:
        crc32: recorded checksum of the whole file. Without it, damage to column names and types may go
            unnoticed, because Parquet's own checksums cover only the values.

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
    """Read a file and verify its recorded checksum, if there is one.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: the checksum differs.
    """
    content = read_regular(path)
    if crc32 is not None and zlib.crc32(content) != crc32:
        raise ValueError(f"{path} is damaged: its checksum is not the one in the record")
    return content
