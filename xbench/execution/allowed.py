"""Tell which files below the allowed folders are not code: a suite's images, and what this command prints."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from datetime import datetime

from xbench.components.code import latest_change
from xbench.components.code_files import IGNORE_FILE, ImportDirs, place_of
from xbench.suite.reader import Suite

# Variables that say where a dataset's images are, such as XBENCH_CHEST_XRAY_ROOT.
_ROOT_VARIABLE = re.compile(r"XBENCH_.+_ROOT")


def allowed_folders(import_dirs: Sequence[str], suite: Suite) -> ImportDirs:
    """Leave out of the allowed folders what a suite's own datasets read, which their fingerprints stand for,
    and the files that stdout and stderr are redirected to, which grow during the run.

    Images of a `module:attribute` dataset stay in: how it reads them is not known.
    """
    folders = [os.path.expanduser(root) for root in _roots(suite)]
    places = [place_of(folder) for folder in folders if os.path.isdir(folder)]
    places += [place_of(descriptor) for descriptor in (1, 2) if _is_file(descriptor)]
    return ImportDirs(tuple(import_dirs), frozenset(place for place in places if place is not None))


def changed_since(import_dirs: ImportDirs, started_at: str) -> tuple[str, ...]:
    """A sentence on the file below the allowed folders that was changed last, if that was after a run began:
    it explains why cells of that run are run again.

    Args:
        started_at: when that run began, in ISO format.
    """
    latest = latest_change(import_dirs)
    if latest is None or latest.changed_ns < datetime.fromisoformat(started_at).timestamp() * 1e9:
        return ()
    return (
        f"{latest.path} was changed since the latest run of this suite: cells with a module:attribute run "
        f"again. If the file is not code, name it in a {IGNORE_FILE}",
    )


def _roots(suite: Suite) -> Iterator[str]:
    for experiment in suite.experiments.values():
        for dataset in experiment.dataset:
            for table in (dataset, dataset.fallback):
                if table is None or any(":" in name for name in table.names):
                    continue
                roots = table.settings.get("root", [])
                for root in roots if isinstance(roots, list) else [roots]:
                    if isinstance(root, str) and "\0" not in root:
                        yield root
    yield from (root for name, root in os.environ.items() if _ROOT_VARIABLE.fullmatch(name))


def _is_file(descriptor: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:  # it was closed
        return False
