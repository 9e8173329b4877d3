"""Scale 16-bit images to 8 bits, all images of a dataset in the same way.

16-bit files often hold 10- or 12-bit values (microscopes, X-rays), which would be nearly black if they were
scaled by the full range. A single image does not show its bit depth, since a dark one looks the same, so the
highest value in the whole dataset decides.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

# Usual bit depths of the values in 16-bit files.
_DEPTHS = (8, 10, 12, 14, 16)

_DARK_BITS = 12


def white_level(highest: Collection[int]) -> int:
    """Return the value to scale to 255: the maximum of the lowest usual bit depth that holds all values.

    Args:
        highest: the highest value of each 16-bit image in a dataset.
    """
    bits = max(highest, default=0).bit_length()
    return (1 << next(depth for depth in _DEPTHS if bits <= depth)) - 1


def to_eight_bits(image: np.ndarray, white: int) -> np.ndarray:
    """Scale a uint16 array so that `white` becomes 255."""
    return ((image.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)


def describe_scaling(highest: Collection[int]) -> list[str]:
    """Write a note on how 16-bit images were scaled, unless the full range suits all of them.

    Args:
        highest: see `white_level`.
    """
    white = white_level(highest)
    if highest and white < white_level([65535]):
        return [
            f"{len(highest):,} 16-bit images have no value above {max(highest):,}; all were scaled "
            f"with {white:,} as white ({white.bit_length()} bits)"
        ]
    dark = sum(value.bit_length() <= _DARK_BITS for value in highest)
    if not dark:
        return []
    return [
        f"{dark:,} of {len(highest):,} 16-bit images have no value above 4,095 and are nearly black: "
        "other images use a wider range, and all were scaled in the same way"
    ]
