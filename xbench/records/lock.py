"""One run at a time in the results of a suite."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from xbench.errors import XbenchError

# File systems without locks, network ones mostly.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """Hold the folder of a suite's runs for this process. The system lets go of it when the process ends,
    however it does.

    Raises:
        XbenchError: another process holds it, or it cannot be written to.
    """
    with _opened(folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            raise XbenchError(
                f"another run of this suite is at work in {folder}{f' (process {holder})' if holder else ''}",
                hint="wait until it has ended, or choose another folder with --out",
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def unwritable(folder: Path, error: OSError) -> XbenchError:
    """What to tell the user of a folder that cannot take results."""
    hint = "choose another folder with --out"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        hint = f"make space, or {hint}"
    return XbenchError(f"cannot write results to {folder}: {error.strerror}", hint=hint)


def _opened(folder: Path) -> TextIO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / ".lock").open("a+")
    except OSError as error:
        raise unwritable(folder, error) from error
