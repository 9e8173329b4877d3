"""Decoding a dataset once, in parallel, to a flat file in the cache."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from xbench.components.specs import Dataset, Example
from xbench.data.decoded import DecodedDataset
from xbench.data.fingerprints import are_known, content_hashes
from xbench.errors import XbenchError
from xbench.paths import cache_dir, put_in_place, require_space

# Part of every key: raise it when the bytes that decoding makes of the same file change.
LAYOUT_VERSION = 2

_SYSTEM_ERRORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})

OnProgress = Callable[[int, int], None]


def decode(
    dataset: Dataset, name: str, stand_in: str, strict: bool, on_progress: OnProgress
) -> DecodedDataset:
    """Make sure that a dataset's images are in the cache, and describe them.

    Args:
        dataset: what the factory listed.
        name, stand_in: from the suite and the spec, for the records.
        strict: stop at unreadable images instead of leaving them out.
        on_progress: called with (decoded, total) while images are decoded; never if they were cached.

    Raises:
        XbenchError: an image is unreadable and `strict` holds, or none is readable.
    """
    examples = _in_order(dataset)
    if not examples:
        raise XbenchError(f"{name} lists no images")
    hashes, reasons = content_hashes(examples)
    key = _key(examples, hashes, dataset.shape)
    folder = _folder(key)
    undecodable = _read_index(folder, len(examples) * math.prod(dataset.shape))
    if undecodable is None:
        undecodable = _build(folder, dataset, examples, hashes, on_progress)
    unreadable = sorted({**reasons, **undecodable}.items())
    if unreadable and strict:
        first, reason = unreadable[0]
        raise XbenchError(
            f"{name}: {len(unreadable)} of {len(examples)} images are unreadable; {first}: {reason}",
            hint="mend or remove them, or drop `strict = true` to leave them out",
        )
    bad = {name for name, _ in unreadable}
    kept = [row for row, example in enumerate(examples) if example.name not in bad]
    if not kept:
        raise XbenchError(f"{name}: none of its {len(examples)} images is readable; {unreadable[0][1]}")
    return DecodedDataset(
        name=name,
        classes=dataset.classes,
        positive=dataset.positive,
        shape=dataset.shape,
        notes=dataset.notes,
        stand_in=stand_in,
        pixels_path=folder / "pixels.u8",
        rows=np.array(kept),
        labels=np.array([examples[row].label for row in kept]),
        is_test=np.array([examples[row].split == "test" for row in kept]),
        groups=tuple(examples[row].group for row in kept),
        fingerprint=_fingerprint(key, [examples[row] for row in kept]),
        unreadable=tuple(unreadable),
    )


def is_decoded(dataset: Dataset) -> bool:
    """Whether all of a dataset's images are in the cache, as far as can be told without reading them."""
    examples = _in_order(dataset)
    if not are_known(examples):
        return False
    hashes, _ = content_hashes(examples)
    folder = _folder(_key(examples, hashes, dataset.shape))
    return _read_index(folder, len(examples) * math.prod(dataset.shape)) is not None


def _in_order(dataset: Dataset) -> list[Example]:
    """The examples in the order of their rows."""
    return sorted(dataset.examples, key=lambda example: example.name)


def _folder(key: str) -> Path:
    return cache_dir() / "images" / key


def _key(examples: list[Example], hashes: list[str | None], shape: tuple[int, int, int]) -> str:
    digest = hashlib.sha256(f"{LAYOUT_VERSION} {shape}".encode())
    for example, content in zip(examples, hashes, strict=True):
        digest.update(f"\0{example.name}\0{content}".encode())
    return digest.hexdigest()[:24]


def _fingerprint(key: str, examples: list[Example]) -> str:
    digest = hashlib.sha256(key.encode())
    for example in examples:
        digest.update(f"\0{example.name}\0{example.label}\0{example.split}\0{example.group}".encode())
    return digest.hexdigest()[:24]


def _read_index(folder: Path, size: int) -> dict[str, str] | None:
    """The reason for each undecodable image of a cache; None if there is no cache, or it is damaged."""
    pixels = folder / "pixels.u8"
    try:
        index, stat = json.loads((folder / "index.json").read_text()), pixels.stat()
        # Gigabytes, perhaps: they are read only where something may have written to them.
        is_as_made = stat.st_mtime_ns == index["modified_ns"] or _digest(pixels) == index["sha256"]
        return index["unreadable"] if stat.st_size == size and is_as_made else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _build(
    folder: Path,
    dataset: Dataset,
    examples: list[Example],
    hashes: list[str | None],
    on_progress: OnProgress,
) -> dict[str, str]:
    """Decode into a folder beside the final one and rename it, so that a half-made cache is never seen."""
    size = len(examples) * math.prod(dataset.shape)
    require_space(folder.parent, size, f"decoding {len(examples):,} images")
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        unreadable = _decode_all(aside / "pixels.u8", dataset, examples, hashes, on_progress)
        pixels = aside / "pixels.u8"
        index = {
            "shape": dataset.shape,
            "unreadable": unreadable,
            "modified_ns": pixels.stat().st_mtime_ns,
            "sha256": _digest(pixels),
        }
        (aside / "index.json").write_text(json.dumps(index))
        put_in_place(aside, folder, lambda: _read_index(folder, size) is not None)
        return unreadable
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _decode_all(
    pixels: Path,
    dataset: Dataset,
    examples: list[Example],
    hashes: list[str | None],
    on_progress: OnProgress,
) -> dict[str, str]:
    """Write every image to its row; an unreadable one leaves a hole, and its reason is returned."""
    channels, height, width = dataset.shape
    image_bytes = channels * height * width
    unreadable: dict[str, str] = {}

    def decode_one(row: int) -> None:
        try:
            image = np.ascontiguousarray(dataset.read(examples[row]))
        except Exception as error:  # Pillow and plugins raise many kinds; most mean this one image
            if isinstance(error, MemoryError) or getattr(error, "errno", None) in _SYSTEM_ERRORS:
                raise  # gone another time, so not to be remembered as the image's fault
            unreadable[examples[row].name] = f"{type(error).__name__}: {error}"
            return
        if image.shape != (height, width, channels) or image.dtype != np.uint8:
            raise XbenchError(
                f"{examples[row].name}: read() gave {image.dtype} {image.shape}, "
                f"not uint8 {(height, width, channels)}"
            )
        if os.pwrite(descriptor, image, row * image_bytes) != image_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    todo = [row for row, content in enumerate(hashes) if content is not None]
    descriptor = os.open(pixels, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        os.truncate(descriptor, len(examples) * image_bytes)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            futures = [pool.submit(decode_one, row) for row in todo]
            try:
                for done, future in enumerate(as_completed(futures), start=1):
                    future.result()
                    on_progress(done, len(todo))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # not thousands more for nothing
                raise
    finally:
        os.close(descriptor)
    return unreadable
