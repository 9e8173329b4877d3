"""Decode a dataset once, in parallel, to a flat file in the cache."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import stat
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from xbench.components.image_dataset import Dataset, Example
from xbench.components.images import describe_unreadable
from xbench.data.decoded import DecodedDataset
from xbench.data.depth import describe_scaling, to_eight_bits, white_level
from xbench.data.duplicates import NO_DUPLICATES, find_duplicates
from xbench.data.fingerprints import are_known, content_hashes
from xbench.data.near_search import find_near_copies
from xbench.data.rows import row_checksums
from xbench.errors import XbenchError
from xbench.memory.processor import usable_cpus
from xbench.storage.atomic import read_json, write_json
from xbench.storage.cache import load, save
from xbench.storage.locks import hold_place
from xbench.storage.paths import cache_dir, disk_errors, require_space
from xbench.storage.staging import replace_folder, staging_folder

# Part of every cache key. Raise it when decoding the same file gives other bytes.
LAYOUT_VERSION = 3

_SYSTEM_ERRORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})

_UINT16_MAX = 65535

_PIXELS, _INDEX = "pixels.u8", "index.json"

OnProgress = Callable[[int, int], None]

# Called with the name of a step ("hashing images"), the number done and the total; (0, 0) if unknown.
OnStep = Callable[[str, int, int], None]

# Name of the step that decodes images.
DECODING = "decoding images"


def decode(
    dataset: Dataset,
    name: str,
    stand_in: str,
    strict: bool,
    on_progress: OnProgress,
    code: str = "",
    is_sample: bool = False,
    on_step: OnStep = lambda step, done, total: None,
) -> DecodedDataset:
    """Decode a dataset's images to the cache unless they are already there, and describe them.

    Args:
        dataset: the dataset as its factory lists it.
        name, stand_in: the dataset's name in the suite and the `stand_in` of its spec, for the records.
        strict: fail on unreadable images instead of leaving them out.
        on_progress: called with (decoded, total) while images are decoded; never called if they are cached.
        code: hash of the code that reads the images, where the examples do not identify their content.
        is_sample: the dataset is a small sample of another one. It need not suffice for training, and its
            duplicates, near-duplicates and bit depth are not reported.
        on_step: called during all other steps that may take long.

    Raises:
        XbenchError: there are no images, none is readable, a class has no readable training image, or an
            image is unreadable and `strict` is set; images change while they are decoded; or the cache cannot
            be written.
    """
    examples = _sort_examples(dataset)
    if not examples:
        raise XbenchError(f"{name} lists no images")
    hashes, reasons = content_hashes(examples, partial(on_step, "hashing images"))
    key = _compute_key(examples, hashes, dataset.shape, code)
    rows = _Rows(cache_dir() / "images" / key, len(examples), math.prod(dataset.shape))
    on_step("checking decoded images", 0, 0)
    index = rows.read_index()
    if index is None:
        with disk_errors(f"images cannot be cached in {cache_dir()}"):
            index = _build(rows, dataset, examples, hashes, on_progress, on_step)
    on_step("describing images", 0, 0)
    unreadable = sorted({**reasons, **index.unreadable}.items())
    if unreadable and strict:
        first, reason = unreadable[0]
        raise XbenchError(
            f"{name}: {len(unreadable)} of {len(examples)} images are unreadable; {first}: {reason}",
            hint="fix or remove them, or remove `strict = true` to leave them out",
        )
    bad = {name for name, _ in unreadable}
    kept = [row for row, example in enumerate(examples) if example.name not in bad]
    if not kept:
        raise XbenchError(f"{name}: none of its {len(examples)} images is readable; {unreadable[0][1]}")
    duplicates, depth_notes = NO_DUPLICATES, []
    if not is_sample:
        _check_classes(name, dataset, [examples[row] for row in kept], dict(unreadable))
        duplicates = find_duplicates([examples[row] for row in kept], [hashes[row] for row in kept])
        depth_notes = describe_scaling(index.highest)
    data = DecodedDataset(
        name=name,
        classes=dataset.classes,
        positive=dataset.positive,
        shape=dataset.shape,
        notes=(*dataset.notes, *depth_notes),
        stand_in=stand_in,
        pixels_path=rows.path,
        rows=np.array(kept),
        labels=np.array([examples[row].label for row in kept]),
        is_test=np.array([examples[row].split == "test" for row in kept]),
        groups=tuple(examples[row].group for row in kept),
        names=tuple(examples[row].name for row in kept),
        fingerprint=_compute_fingerprint(key, dataset, [examples[row] for row in kept]),
        unreadable=tuple(unreadable),
        duplicates=duplicates,
        is_sample=is_sample,
    )
    if is_sample:
        return data
    return replace(data, near=find_near_copies(data, partial(on_step, "comparing images")))


def _check_classes(name: str, dataset: Dataset, kept: list[Example], unreadable: dict[str, str]) -> None:
    """Check that no class has lost all its training images."""
    readable = {example.label for example in kept if example.split == "train"}
    lost = [e for e in dataset.examples if e.name in unreadable and e.label not in readable]
    if lost:
        first = min(lost, key=lambda example: (example.split != "train", example.name))
        count = sum(example.label == first.label for example in lost)
        raise XbenchError(
            f"{name}: class '{dataset.classes[first.label]}' has no readable training image; "
            f"{first.name}: {unreadable[first.name]}",
            hint=f"replace its {count:,} unreadable images, or remove the class",
        )


def is_decoded(dataset: Dataset, code: str = "") -> bool:
    """Return whether all of a dataset's images are known to be in the cache, without hashing any file."""
    examples = _sort_examples(dataset)
    if not are_known(examples):
        return False
    hashes, _ = content_hashes(examples)
    folder = cache_dir() / "images" / _compute_key(examples, hashes, dataset.shape, code)
    return _Rows(folder, len(examples), math.prod(dataset.shape)).read_index() is not None


def _sort_examples(dataset: Dataset) -> list[Example]:
    """Sort the examples into the order of their rows."""
    return sorted(dataset.examples, key=lambda example: example.name)


def _compute_key(
    examples: list[Example], hashes: list[str | None], shape: tuple[int, int, int], code: str
) -> str:
    digest = hashlib.sha256(f"{LAYOUT_VERSION} {shape}{code and f' {code}'}".encode())
    if any(example.path is not None for example in examples):
        digest.update(f"\0Pillow {_get_pillow_version()}".encode())
    for example, content in zip(examples, hashes, strict=True):
        digest.update(f"\0{example.name}\0{content}".encode())
    return digest.hexdigest()[:24]


def _get_pillow_version() -> str:
    """Return Pillow's version: another one may decode a file to other pixels."""
    import PIL

    return PIL.__version__


def _compute_fingerprint(key: str, dataset: Dataset, examples: list[Example]) -> str:
    seen = (key, dataset.shape, dataset.classes, dataset.positive)
    digest = hashlib.sha256(repr(seen).encode())
    for example in examples:
        digest.update(f"\0{example.name}\0{example.label}\0{example.split}\0{example.group}".encode())
    return digest.hexdigest()[:24]


@dataclass(frozen=True)
class _Index:
    """Results of decoding besides the pixels.

    Attributes:
        unreadable: reason by name for each image that cannot be decoded.
        highest: the highest value of each 16-bit image.
    """

    unreadable: dict[str, str]
    highest: list[int]


@dataclass(frozen=True)
class _Rows:
    """Cache of one dataset: a file with rows of equal size, and an index to check it against."""

    folder: Path
    count: int
    row_bytes: int

    @property
    def path(self) -> Path:
        return self.folder / _PIXELS

    def read_index(self) -> _Index | None:
        """Read the index; return None if there is no cache, or it is damaged."""
        index = read_json(self.folder / _INDEX)
        if index is None:
            return None
        try:
            found = self.path.stat()
            if not stat.S_ISREG(found.st_mode) or found.st_size != self.count * self.row_bytes:
                return None
            if found.st_mtime_ns not in (index["mtime_ns"], load("checked", str(self.path))):
                if _digest(row_checksums(self.path, self.row_bytes, range(self.count))) != index["checksum"]:
                    return None
                save("checked", str(self.path), found.st_mtime_ns)
            return _Index(index["unreadable"], index["highest"])
        except (OSError, KeyError, TypeError):
            return None

    def write_index(self, index: _Index, checksums: np.ndarray) -> None:
        """Write the index of a complete pixel file, while the folder is still a staging folder."""
        content: dict[str, Any] = {"unreadable": index.unreadable, "highest": index.highest}
        content["checksum"] = _digest(checksums)
        write_json(self.folder / _INDEX, content | {"mtime_ns": self.path.stat().st_mtime_ns})


def _digest(checksums: np.ndarray) -> str:
    return hashlib.sha256(checksums.tobytes()).hexdigest()


def _build(
    rows: _Rows,
    dataset: Dataset,
    examples: list[Example],
    hashes: list[str | None],
    on_progress: OnProgress,
    on_step: OnStep,
) -> _Index:
    """Decode into a staging folder and then rename it, so that no process sees an incomplete cache."""
    require_space(rows.folder.parent, rows.count * rows.row_bytes, f"decoding {rows.count:,} images")
    with staging_folder(rows.folder) as staged:
        new = replace(rows, folder=staged)
        index, checksums = _decode_all(new, dataset, examples, hashes, on_progress)
        _check_unchanged(examples, hashes, partial(on_step, "checking images"))
        on_step("saving decoded images", 0, 0)
        new.write_index(index, checksums)
        with hold_place(rows.folder, on_wait=lambda: None):
            if rows.read_index() is None:  # otherwise another process was faster
                replace_folder(staged, rows.folder)
    return index


def _check_unchanged(examples: list[Example], hashes: list[str | None], on_progress: OnProgress) -> None:
    """Check that no image has changed since it was hashed."""
    now, _ = content_hashes(examples, on_progress)
    changed = [e.name for e, old, new in zip(examples, hashes, now, strict=True) if old != new]
    if changed:
        raise XbenchError(
            f"{len(changed)} of {len(examples)} images changed while they were decoded: {changed[0]}",
            hint="run again when no other program writes to them",
        )


def _decode_all(
    rows: _Rows,
    dataset: Dataset,
    examples: list[Example],
    hashes: list[str | None],
    on_progress: OnProgress,
) -> tuple[_Index, np.ndarray]:
    """Write every image to its row; the row of an unreadable image stays empty.

    16-bit images that do not use their full range are read twice: their range is known only when all have
    been read.

    Returns:
        The index, and the checksum of each row.
    """
    channels, height, width = dataset.shape
    unreadable: dict[str, str] = {}
    highest: dict[int, int] = {}
    white = _UINT16_MAX
    checksums = np.full(rows.count, zlib.crc32(bytes(rows.row_bytes)), np.uint32)

    def decode_one(row: int) -> None:
        try:
            image = np.ascontiguousarray(dataset.read(examples[row]))
        except Exception as error:  # Pillow and plugins raise many types, mostly because of this one image
            if isinstance(error, MemoryError) or getattr(error, "errno", None) in _SYSTEM_ERRORS:
                raise  # a temporary error must not be recorded as the image's fault
            unreadable[examples[row].name] = describe_unreadable(error)
            return
        if image.shape != (height, width, channels) or image.dtype not in (np.uint8, np.uint16):
            raise XbenchError(
                f"{examples[row].name}: read() returned {image.dtype} {image.shape}, "
                f"not uint8 {(height, width, channels)}"
            )
        if image.dtype == np.uint16:
            highest[row] = int(image.max())
            image = to_eight_bits(image, white)
        if os.pwrite(descriptor, image.data, row * rows.row_bytes) != rows.row_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        checksums[row] = zlib.crc32(image.data)

    readable = [row for row, content in enumerate(hashes) if content is not None]
    descriptor = os.open(rows.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        os.truncate(descriptor, rows.count * rows.row_bytes)
        _for_each(readable, decode_one, on_progress)
        actual_white = white_level(highest.values())
        if highest and actual_white < white:
            white = actual_white
            _for_each(sorted(highest), decode_one, on_progress)
    finally:
        os.close(descriptor)
    return _Index(unreadable, [highest[row] for row in sorted(highest)]), checksums


def _for_each(rows: list[int], decode_one: Callable[[int], None], on_progress: OnProgress) -> None:
    with ThreadPoolExecutor(usable_cpus()) as pool:
        futures = [pool.submit(decode_one, row) for row in rows]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                on_progress(done, len(rows))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # do not decode the remaining images
            raise
