"""Made-up images with shapes and detail, and changed versions of them that look alike."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

SIDE = 96


def make_scene(seed: int, side: int = SIDE, same: int = 0) -> np.ndarray:
    """Draw noise whose amplitude falls with the frequency, as in photographs: uint8 (side, side, 3).

    Args:
        same: seed of coarse noise that many images share, as radiographs share their anatomy; 0 for none.
    """
    grey = _draw_noise(seed, side)
    if same:
        grey = grey / 4 + _draw_noise(same, side, finest=4)
    low, high = grey.min(), grey.max()
    shades = np.stack([(grey - low) / (high - low) * white for white in (200, 190, 180)], axis=-1)
    return shades.astype(np.uint8)


def _draw_noise(seed: int, side: int, finest: int | None = None) -> np.ndarray:
    """Draw noise with up to `finest` waves from side to side."""
    random = np.random.default_rng(seed)
    waves = np.fft.fft2(random.normal(size=(side, side)))
    frequencies = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    frequencies[0, 0] = 1
    if finest is not None:
        waves[side * frequencies > finest] = 0
    return np.real(np.fft.ifft2(waves / frequencies))


def compress(image: Image.Image) -> Image.Image:
    """Encode as JPEG of quality 30."""
    stream = io.BytesIO()
    image.save(stream, "jpeg", quality=30)
    return Image.open(stream)


def shrink(image: Image.Image) -> Image.Image:
    """Resize to 0.9 of the size."""
    return image.resize((round(0.9 * image.width), round(0.9 * image.height)), Image.Resampling.BILINEAR)


def brighten(image: Image.Image) -> Image.Image:
    """Raise the brightness by 10 %."""
    return image.point(lambda value: min(255, round(1.1 * value)))


def crop(image: Image.Image) -> Image.Image:
    """Cut off 1 % at each side."""
    x, y = 0.01 * image.width, 0.01 * image.height
    return image.resize(image.size, Image.Resampling.BILINEAR, box=(x, y, image.width - x, image.height - y))


def crop_one_side(image: Image.Image) -> Image.Image:
    """Cut off 2 % at the left."""
    x = 0.02 * image.width
    return image.resize(image.size, Image.Resampling.BILINEAR, box=(x, 0, image.width, image.height))


CHANGES: tuple[Callable[[Image.Image], Image.Image], ...] = (compress, shrink, brighten, crop, crop_one_side)


def change(pixels: np.ndarray, how: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """Return a changed version of an image (height, width, 3), at its size."""
    height, width, _ = pixels.shape
    changed = how(Image.fromarray(pixels)).convert("RGB")
    return np.asarray(changed.resize((width, height), Image.Resampling.BILINEAR))
