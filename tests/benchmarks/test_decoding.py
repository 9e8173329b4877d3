"""Images a second, in one thread, against the full decode as most loaders write it: to RGB, then Pillow's
default filter. Real originals if they are there.

    pytest tests/benchmarks/test_decoding.py --benchmark-only -s

Run it alone: a second busy process takes from both, but not evenly.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.benchmarks.pairs import paired
from xbench.components.image_files import list_images
from xbench.components.images import read_image

SIDE = 224


def made_up(mode: str, folder: Path) -> list[Path]:
    """Eight JPEGs of 1,500 x 1,500 with about as much detail as an X-ray."""
    random = np.random.default_rng(0)
    paths = []
    for i in range(8):
        coarse = Image.fromarray(random.integers(0, 256, (90, 90, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((1500, 1500), Image.Resampling.BICUBIC)).astype(float)
        noisy = (smooth + random.normal(0, 3, smooth.shape)).clip(0, 255).astype(np.uint8)
        paths.append(folder / f"{i}.jpeg")
        Image.fromarray(noisy).convert(mode).save(paths[-1], quality=90)
    return paths


def compare(benchmark, paths: list[Path]) -> float:
    """Time of `read_image` / time of the full decode."""

    def scaled() -> None:
        for path in paths:
            read_image(path, SIDE, SIDE)

    def full() -> None:
        for path in paths:
            np.asarray(Image.open(path).convert("RGB").resize((SIDE, SIDE)))

    ratio = paired(benchmark, scaled, full, rounds=20)
    a_second = len(paths) / benchmark.stats.stats.median
    print(f"{a_second:.0f} images/s, the full decode {a_second * ratio:.0f} images/s")
    return ratio


def test_real_originals(benchmark, real_images):
    """The aim: at most half of the time."""
    originals = real_images.with_name("chest_xray_full")
    if not originals.is_dir():
        pytest.skip(f"no real images in {originals}")
    assert compare(benchmark, [originals / name for name in list_images(originals)]) < 0.5


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_made_up_images(benchmark, tmp_path, mode):
    assert compare(benchmark, made_up(mode, tmp_path)) < 0.6
