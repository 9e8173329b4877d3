"""Image files: which of a folder's files are images, and reading one to the size that a dataset has."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from xbench.errors import XbenchError
from xbench.files import open_regular

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from xbench.components.specs import Example

IMAGE_SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})

# Folders beside `train` that hold images for validation: xbench holds its own out of train.
VALIDATION_FOLDERS = ("val", "valid", "validation")

# A JPEG is decoded to a half, a quarter or an eighth of its size if that leaves at least this many times the
# size that is wanted. Against the full decode of 16 originals of chest-xray (1,032 to 1,944 pixels wide), at
# 224 pixels, in levels of 0 to 255:
#   1 time:  0.31 on average, 29 at most, 2.5 times the full decode's speed
#   2 times: 0.11 on average,  9 at most, 2.1 times
#   3 times: 0.03 on average,  5 at most, 1.8 times
# From 2 on, the error is below that of rounding to whole levels (0.25 on average).
_SCALED_DECODE_GAP = 2

# What is read, whatever a file's suffix says. Not all that Pillow knows: for some it runs other programs.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")

_LONGEST_REASON = 200

_SIXTEEN_BIT_MODES = ("I", "I;16", "I;16L", "I;16B")


def is_clutter(name: str) -> bool:
    """Whether a file or folder of that name is none of a dataset: hidden, or put there by macOS."""
    return name.startswith(".") or name == "__MACOSX"


def list_images(folder: Path, left_out: list[PurePosixPath] | None = None) -> list[PurePosixPath]:
    """The images at any depth below a folder, relative to it, sorted; links are followed.

    Args:
        left_out: is given the names that look like images and are no regular files, sorted: links to nowhere,
            pipes, devices.

    Raises:
        XbenchError: a folder cannot be read, or a name is no Unicode.
    """
    images: list[PurePosixPath] = []
    others: list[PurePosixPath] = []
    # A stack: folders may lie in each other as deep as names may be long.
    waiting: list[tuple[str, str, frozenset[tuple[int, int]]]] = [(str(folder), "", frozenset())]
    while waiting:
        place, relative, above = waiting.pop()
        itself, entries = _look_into(place)
        if itself in above:
            continue  # a link to a folder that it lies in
        for name, kind in entries:
            if stat.S_ISDIR(kind):
                waiting.append((f"{place}/{name}", f"{relative}{name}/", above | {itself}))
            elif os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                (images if stat.S_ISREG(kind) else others).append(PurePosixPath(relative, name))
    if left_out is not None:
        left_out.extend(sorted(others))
    return sorted(images)


def not_used(left_out: list[PurePosixPath]) -> list[str]:
    """A note for the readers of results on what `list_images` left out; none if that is nothing."""
    more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
    names = ", ".join(f"{str(name)!r}" for name in left_out[:3])
    return [f"not used, as they are no regular files: {names}{more}"] if left_out else []


def _look_into(folder: str) -> tuple[tuple[int, int], list[tuple[str, int]]]:
    """What tells a folder from all others; and name and kind of what lies in it, clutter aside. The kind of a
    link to nowhere is 0."""
    try:
        folder.encode()
        itself = os.stat(folder)
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not is_clutter(entry.name)]
        for entry in found:
            entry.name.encode()
    except OSError as error:
        raise XbenchError(f"{folder} cannot be listed: {error.strerror}") from error
    except UnicodeEncodeError as error:
        raise XbenchError(
            f"{error.object!a}, at or in {folder!a}, is no UTF-8 name", hint="rename it"
        ) from error
    return (itself.st_dev, itself.st_ino), [(entry.name, _kind(entry)) for entry in found]


def _kind(entry: os.DirEntry[str]) -> int:
    try:
        return stat.S_IFMT(entry.stat().st_mode)
    except OSError:
        return 0


def check_image_size(image_size: int, dataset: str) -> None:
    """Check what a suite gives as height and width in pixels.

    Raises:
        XbenchError: it is no whole number, or out of range.
    """
    if not isinstance(image_size, int) or not 8 <= image_size <= 4096:
        raise XbenchError(
            f"image_size {image_size} of {dataset} is not a whole number within 8 to 4096",
            hint="most models take 224",
        )


def read_square(example: Example, image_size: int) -> np.ndarray:
    """Read an example's file as `read_image` does, to `image_size` pixels in both directions."""
    return read_image(example.path, image_size, image_size)


def read_image(path: Path, height: int, width: int) -> np.ndarray:
    """Decode one file to RGB and squash it to a size, as the report did (no crop, no padding).

    A JPEG that is much larger is decoded at reduced resolution, which is what its blocks of frequencies are
    made for. Grey stays grey until the end, 16 bits are scaled to 8, transparency is left out, and of an
    animation the first frame is taken. Pixels stay where the file has them: a camera's note on how it was
    held (EXIF) turns nothing.

    Args:
        path: a JPEG or PNG file of any kind, or a GIF, BMP or WebP under such a name.
        height, width: of the result, in pixels.

    Returns:
        uint8 array of (height, width, 3).

    Raises:
        OSError, ValueError, SyntaxError: what Pillow raises for a file that is truncated or no image.
        PIL.Image.DecompressionBombError: it has more pixels than Pillow considers sane.
    """
    import numpy as np
    from PIL import Image

    with open_regular(path) as file, _opened(file) as image:
        pixels = image.width * image.height
        # Pillow only warns between its limit and twice that.
        if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
            raise Image.DecompressionBombError(
                f"{pixels:,} pixels are more than {Image.MAX_IMAGE_PIXELS:,}: it may be made to fill memory"
            )
        box = None
        if image.size != (width, height):
            drafted = image.draft(None, (_SCALED_DECODE_GAP * width, _SCALED_DECODE_GAP * height))
            # Where the picture ends in the reduced one: not at a whole pixel, if its size is no multiple.
            box = drafted and drafted[1]
        plain = _to_eight_bits(image)
    if plain.size != (width, height):
        plain = plain.resize((width, height), Image.Resampling.BILINEAR, box=box)
    return np.asarray(plain.convert("RGB"))


def why_unreadable(error: BaseException) -> str:
    """What was raised for an image, as one line that is not too long and holds nothing but text."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    line = "".join(char if char.isprintable() else "?" for char in line)
    return line if len(line) <= _LONGEST_REASON else f"{line[: _LONGEST_REASON - 3]}..."


def _opened(file: BinaryIO) -> Image:
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError:
        is_empty = not os.fstat(file.fileno()).st_size
        # Pillow's own words hold an address of memory.
        told = "the file is empty" if is_empty else f"the content is none of {', '.join(_FORMATS)}"
        raise UnidentifiedImageError(told) from None


def _to_eight_bits(image: Image) -> Image:
    """The same picture in mode L or RGB, whose values can be averaged."""
    import numpy as np
    from PIL import Image

    image.load()
    if image.mode in _SIXTEEN_BIT_MODES:
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    image.info.pop("transparency", None)  # Pillow warns that it is lost
    return image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
