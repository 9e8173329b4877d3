"""Scale images of 16 bits to 8, all images of a set alike.

Files of 16 bits often hold values of 10 or 12 (microscopes, X-rays), which the full range would turn nearly
black. One image does not tell: a dark one looks the same. So the highest value of the whole set decides.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

# What files of 16 bits hold, usually.
_DEPTHS = (8, 10, 12, 14, 16)

_DARK_BITS = 12


def white_level(highest: Collection[int]) -> int:
    """Return the value that becomes 255: the largest of 8, 10, 12, 14 or 16 bits, whichever first hold all.

    Args:
        highest: the highest value of each image of 16 bits in a set.
    """
    bits = max(highest, default=0).bit_length()
    return (1 << next(depth for depth in _DEPTHS if bits <= depth)) - 1


def to_eight_bits(image: np.ndarray, white: int) -> np.ndarray:
    """Scale a uint16 array so that `white` becomes 255."""
    return ((image.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)


def notes_on_depth(highest: Collection[int]) -> list[str]:
    """Write a note on how images of 16 bits were scaled, unless their full range did for all.

    Args:
        highest: as `white_level` takes it.
    """
    white = white_level(highest)
    if highest and white < white_level([65535]):
        return [
            f"{len(highest):,} images of 16 bits have no value above {max(highest):,}; all were scaled alike "
            f"with {white:,} as white ({white.bit_length()} bits)"
        ]
    dark = sum(value.bit_length() <= _DARK_BITS for value in highest)
    if not dark:
        return []
    return [
        f"{dark:,} of {len(highest):,} images of 16 bits have no value above 4,095 and are nearly black: "
        "others use the whole range, and all were scaled alike"
    ]
