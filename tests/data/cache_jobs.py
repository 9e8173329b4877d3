"""What other processes do to a cache in the tests: started by name, with arguments, as `python -m` would."""

from __future__ import annotations

import resource
import sys
import time
import zipfile
from pathlib import Path

import numpy as np

from xbench.components.image_dataset import Dataset, Example
from xbench.components.specs import Source
from xbench.data.decode import decode
from xbench.data.features import FeatureFile, FeatureWriter
from xbench.data.fetch import fetch_from
from xbench.errors import XbenchError

SIDE, COUNT = 16, 40
SOURCE = Source(
    url="https://tiny.example/tiny.zip",
    sha256="ab" * 32,
    size_bytes=1000,
    unpacked_bytes=10**6,
    counts={"train/A": 30, "test/A": 10},
    folder="tiny-set",
    page="https://tiny.example",
    licence="Tiny Licence",
    citation="Tiny",
)


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def dataset(pause_s: float = 0.0) -> Dataset:
    """Images made of their numbers, at some pace."""

    def read(example: Example) -> np.ndarray:
        time.sleep(pause_s)
        return pixels(int(example.name))

    examples = [
        Example(f"{n:03}", n % 2, "test" if n % 5 == 4 else "train", content=f"{n}") for n in range(COUNT)
    ]
    return Dataset(("a", "b"), "b", (3, SIDE, SIDE), tuple(examples), read)


def build(pause_s: float = 0.0, on_progress=lambda done, total: None):
    return decode(dataset(pause_s), "numbers", "", False, on_progress)


def features(cache: Path) -> FeatureFile:
    return FeatureFile(cache / "features" / "key", (SIDE,), "float32", COUNT)


def value(row: int) -> np.ndarray:
    return np.full((1, SIDE), row + 0.5, dtype="float32")


def fill(cache: Path, pause_s: float = 0.0, tell=lambda row: None) -> None:
    file = features(cache)
    if FeatureFile.find(file.folder) is None:
        file.make()
    with FeatureWriter(file) as writer:
        for row in np.flatnonzero(~file.present()):
            writer.write(np.array([row]), value(int(row)))
            tell(row)
            time.sleep(pause_s)
            writer.commit()


def make_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for number in range(COUNT):
            file.writestr(f"{'train' if number < 30 else 'test'}/A/{number}.png", bytes([number]) * 2000)


def say(*words) -> None:
    print(*words, flush=True)


def main(job: str, cache: str, pause_s: str, limit_bytes: str) -> None:
    """Do a job and say how it goes, in a process that may write files of so many bytes (0: of any size)."""
    say("ready")
    sys.stdin.readline()
    if int(limit_bytes):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit_bytes), int(limit_bytes)))
    try:
        if job == "decode":
            build(float(pause_s), lambda done, total: say("at", done))
        elif job == "features":
            fill(Path(cache), float(pause_s), lambda row: say("at", row))
        else:
            archive = Path(cache).with_name("tiny.zip")
            fetch_from(SOURCE, archive, lambda *at: (say("at", at[1]), time.sleep(float(pause_s))))
    except XbenchError as error:
        say("error", error.message, "|", error.hint)
        sys.exit(2)
    say("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
