"""Images as raw bytes in files, whose reading is counted."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import numpy as np

from xbench.components.image_dataset import Dataset, Example
from xbench.data.decode import decode

HEIGHT, WIDTH, CHANNELS = 4, 5, 3
IMAGE_BYTES = HEIGHT * WIDTH * CHANNELS


def settle(path: Path) -> None:
    """Let a file look as if it had been written a minute ago."""
    a_minute_ago = time.time() - 60
    os.utime(path, (a_minute_ago, a_minute_ago))


class Images:
    """A dataset of raw files in a folder, which counts what it reads. `broken` names cannot be decoded."""

    def __init__(self, folder: Path, count: int = 6):
        self.folder = folder
        self.reads: Counter[str] = Counter()
        self.broken: set[str] = set()
        rng = np.random.default_rng(7)
        folder.mkdir(parents=True)
        for index in range(count):
            (folder / f"{index}.raw").write_bytes(rng.bytes(IMAGE_BYTES))
            settle(folder / f"{index}.raw")
        self.examples = tuple(
            Example(
                name=f"image-{index}",
                label=index % 2,
                split=split,
                group=f"{split}-{index // 2}",
                path=folder / f"{index}.raw",
            )
            for index in range(count)
            for split in ["test" if index % 3 == 2 else "train"]
        )

    def read(self, example: Example) -> np.ndarray:
        self.reads[example.name] += 1
        if example.name in self.broken:
            raise ValueError(f"{example.name} is garbled")
        return np.frombuffer(example.path.read_bytes(), np.uint8).reshape(HEIGHT, WIDTH, CHANNELS)

    def dataset(self, *examples: Example) -> Dataset:
        return Dataset(
            classes=("NORMAL", "PNEUMONIA"),
            positive="PNEUMONIA",
            shape=(CHANNELS, HEIGHT, WIDTH),
            examples=examples or self.examples,
            read=self.read,
            notes=("a note",),
        )

    def rewrite(self, index: int, content: bytes, keep_time: bool = False) -> None:
        path = self.folder / f"{index}.raw"
        stat = path.stat()
        path.write_bytes(content)
        # A later second, whatever the resolution of the file system's clock.
        later = 0 if keep_time else 5_000_000_000
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + later))


def decoded(dataset, strict=False, on_progress=lambda done, total: None):
    return decode(dataset, "pictures", "made up", strict, on_progress)


def pixels_of(data) -> np.ndarray:
    with data.reader(len(data.rows)) as reader:
        return reader.read(data.rows).copy()


def assert_pixels_are_those_of_the_files(data, images, names):
    expected = [images.read(e) for e in sorted(images.examples, key=lambda e: e.name) if e.name in names]
    assert np.array_equal(pixels_of(data), expected)
