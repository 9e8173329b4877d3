"""Reading an image file to the size that a dataset has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

IMAGE_SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})


def read_image(path: Path, height: int, width: int) -> np.ndarray:
    """Decode one file to RGB and squash it to a size, as the report did (no crop, no padding).

    Args:
        path: a JPEG or PNG file, grey or RGB.
        height, width: of the result, in pixels.

    Returns:
        uint8 array of (height, width, 3).

    Raises:
        OSError, ValueError: what Pillow raises for a file that is truncated or no image.
    """
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        rgb = image.convert("RGB")
    if rgb.size != (width, height):
        rgb = rgb.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(rgb)
