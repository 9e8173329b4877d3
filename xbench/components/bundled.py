"""Small data sets that come with scikit-learn, read without importing it.

Importing scikit-learn takes a second and memory that would count as a cell's. The arrays are therefore copied
once to the cache, under scikit-learn's version.
"""

from __future__ import annotations

import hashlib
import io
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np

from xbench.storage.atomic import atomic_write, make_folder, read_regular
from xbench.storage.locks import hold_place
from xbench.storage.paths import cache_dir

_DIGEST_BYTES = hashlib.sha256().digest_size


def load_bundled(loader: str) -> tuple[np.ndarray, np.ndarray]:
    """Load one of scikit-learn's bundled data sets, from the cache if it is there.

    Args:
        loader: name of a function of `sklearn.datasets`, such as `"load_wine"`.

    Returns:
        Features (n, d) and targets (n,), both float64, in their original units.

    Raises:
        XbenchError: no folder can be found for the cache.
    """
    path = cache_dir() / "bundled" / f"{loader}-scikit-learn-{version('scikit-learn')}.npy"
    table = _read(path)
    if table is None:
        table = _load_from_sklearn(loader)
        with suppress(OSError):  # the cache may not be writable
            _write(path, table)
    return table[:, :-1], table[:, -1]


def _load_from_sklearn(loader: str) -> np.ndarray:
    """Return features and targets, which are the last column."""
    from sklearn import datasets

    options = {"scaled": False} if loader == "load_diabetes" else {}
    features, target = getattr(datasets, loader)(return_X_y=True, **options)
    return np.column_stack([features, target]).astype(np.float64)


def _write(path: Path, table: np.ndarray) -> None:
    """Write an array and the SHA-256 of its file's other bytes, which come last."""
    buffer = io.BytesIO()
    np.save(buffer, table, allow_pickle=False)
    content = buffer.getvalue()
    make_folder(path.parent)
    with hold_place(path, on_wait=lambda: None):
        atomic_write(path, content + hashlib.sha256(content).digest())


def _read(path: Path) -> np.ndarray | None:
    """Read what `_write` wrote; return None if the file is missing or damaged."""
    try:
        stored = read_regular(path)
    except OSError:
        return None
    content, digest = stored[:-_DIGEST_BYTES], stored[-_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        return None
    return np.load(io.BytesIO(content), allow_pickle=False)
