"""Compute perceptual hashes of decoded images, and find pairs of images whose hashes are close.

The hash is the one that Zauner (2010), "Implementation and Benchmarking of Perceptual Image Hash Functions",
calls DCT based, with more bits: the signs of the lowest frequencies of the image's discrete cosine transform.
Radiographs look so much alike that 64 bits cannot tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from xbench.data.rows import RowReader

# Part of the key of remembered pairs. Raise it when the hash or its threshold changes.
METHOD_VERSION = 1

# Frequencies in each direction. The constant one says only how bright an image is, so its bit is always 0.
_FREQUENCIES = 16
HASH_BITS = _FREQUENCIES**2

# Images look alike if their hashes differ in at most this many bits. Of 17,042,856 pairs of X-rays of
# different patients, one does, so that the upper 95 % bound of the rate is below this one. docs/data.md has
# the shares of changed images that are found.
MAX_DISTANCE = 38
MAX_FALSE_ALARM_RATE = 3e-7

# Smaller images have too few pixels for this many frequencies.
MIN_SIDE = 2 * _FREQUENCIES

# A flat image has amplitudes of 0, up to errors of rounding.
_ZERO_AMPLITUDE = 0.1

# Of images with more pixels in height or width, some are skipped, evenly. Half as many are enough for so few
# frequencies, and BLAS would split larger products between threads, which takes longer here.
_MAX_PIXELS = 127

# Bytes of pixels that are transformed at once, and number of distances that are computed at once.
_BLOCK_BYTES = 1 << 22
_BLOCK_PAIRS = 1 << 18

OnProgress = Callable[[int, int], None]


def hash_rows(path: Path, shape: tuple[int, int, int], rows: np.ndarray) -> np.ndarray:
    """Compute the perceptual hashes of images in a file.

    Args:
        path: uint8 file of shape (rows, height, width, channels).
        shape: (channels, height, width) of each image, with sides of at least `MIN_SIDE`.
        rows: (images,) positions of the images in the file.

    Returns:
        bool array (images, HASH_BITS).

    Raises:
        OSError: the file is shorter than it should be, or the disk fails.
    """
    channels, height, width = shape
    size = max(1, _BLOCK_BYTES // (channels * height * width))
    blocks = [rows[start : start + size] for start in range(0, len(rows), size)]
    with RowReader(path, (height, width, channels), "uint8", size) as reader:
        return np.concatenate(
            [np.empty((0, HASH_BITS), bool), *(hash_images(reader.read(block)) for block in blocks)]
        )


def hash_images(images: np.ndarray) -> np.ndarray:
    """Compute the perceptual hash of each image: a bit for each frequency, 1 where its amplitude is positive.

    Colours are averaged. Apart from errors of resizing, the hash does not depend on the size of an image.

    Args:
        images: uint8 array (images, height, width, channels), with sides of at least `MIN_SIDE`.

    Returns:
        bool array (images, HASH_BITS).
    """
    skip_rows, skip_columns = (-(-side // _MAX_PIXELS) for side in images.shape[1:3])
    used = images[:, skip_rows // 2 :: skip_rows, skip_columns // 2 :: skip_columns]
    channels = images.shape[-1]
    grey: np.ndarray = np.zeros(used.shape[:-1], np.float32)
    for channel in range(channels):
        grey += used[..., channel]
    amplitudes = _cosines(grey.shape[1]) @ (grey @ _cosines(grey.shape[2]).T) / channels
    bits = amplitudes.reshape(len(images), HASH_BITS) > _ZERO_AMPLITUDE
    bits[:, 0] = False
    return bits


def _cosines(size: int) -> np.ndarray:
    """Return the lowest frequencies of the orthogonal DCT-II as rows: float32 (frequencies, size)."""
    places = (np.arange(size) + 0.5) / size
    waves = np.cos(np.pi * np.arange(_FREQUENCIES)[:, None] * places) * np.sqrt(2 / size)
    waves[0] /= np.sqrt(2)
    return waves.astype(np.float32)


def find_close_pairs(hashes: np.ndarray, max_distance: int, on_progress: OnProgress) -> Iterator[np.ndarray]:
    """Compare all pairs of hashes, in blocks of bounded memory.

    Args:
        hashes: bool array (images, bits), where the number of bits is a multiple of 64.
        max_distance: the number of bits in which two close hashes may differ (Hamming distance).
        on_progress: called with (compared, total) pairs at intervals.

    Yields:
        int64 arrays (pairs, 2) of positions in `hashes`, in ascending order, the lower one of a pair first.
    """
    count = len(hashes)
    words = np.ascontiguousarray(np.packbits(hashes, axis=1).view(np.uint64).T)
    size = max(1, _BLOCK_PAIRS // max(1, count))
    for start in range(0, count, size):
        left = count - start
        on_progress(count * (count - 1) // 2 - left * (left - 1) // 2, count * (count - 1) // 2)
        distances = np.zeros((min(size, left), left), np.uint16)
        for word in words:
            distances += np.bitwise_count(word[start : start + size, None] ^ word[start:])
        rows, others = np.divmod(np.flatnonzero(distances <= max_distance), left)
        later = others > rows
        yield np.stack([rows[later], others[later]], axis=1) + start
