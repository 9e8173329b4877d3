"""Small data that tests share: made here, decoded by the real code, nothing downloaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Before anything imports torch: threads that wait for each other are slow where tests share the processor.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from tests.cli.cli_process import StandingCli
from xbench import Dataset, Example
from xbench.data.decode import decode
from xbench.data.decoded import DecodedDataset

REAL_IMAGES = Path(__file__).parents[2] / "shared/data/chest_xray_224"


@pytest.fixture
def real_images() -> Path:
    """The folder of real X-rays, where it is there."""
    if not REAL_IMAGES.is_dir():
        pytest.skip(f"no real images in {REAL_IMAGES}")
    return REAL_IMAGES


def bright_and_dark(train: int = 90, test: int = 30, side: int = 16) -> Dataset:
    """Noise, brighter in class "bright": a third of the examples; patients of two images each."""

    def example(split: str, index: int) -> Example:
        label = int(index % 6 < 2)  # pairs of one class, one patient
        return Example(
            name=f"{split}/{index:03d}",
            label=label,
            split=split,
            group=f"{split}/{index // 2}",
            content=f"bright and dark {split} {index} {side}",
        )

    def read(example: Example) -> np.ndarray:
        random = np.random.default_rng([example.split == "test", int(example.name[-3:])])
        noise = random.normal(110 + 25 * example.label, 40, (side, side, 3))
        return noise.clip(0, 255).astype(np.uint8)

    examples = [example("train", i) for i in range(train)] + [example("test", i) for i in range(test)]
    return Dataset(
        classes=("dark", "bright"),
        positive="bright",
        shape=(3, side, side),
        examples=tuple(examples),
        read=read,
    )


@pytest.fixture(scope="session")
def xbench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandingCli]:
    """`xbench(folder, "run", ...)`: a command as a user gives it, with the cache of these tests."""
    with StandingCli(tmp_path_factory.mktemp("cache")) as cli:
        yield cli


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> DecodedDataset:
    """90 training and 30 test images of 3 x 16 x 16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XBENCH_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        return decode(bright_and_dark(), "bright-and-dark", "noise", False, lambda done, total: None)
