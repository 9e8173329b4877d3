"""Read an image file to the size that a dataset has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from xbench.errors import XbenchError
from xbench.storage.atomic import open_regular

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

    from xbench.components.specs import Example

# The formats that are read, whatever a file's suffix says. Pillow knows more; for some of them it runs other
# programs.
_SUFFIXES_OF = {
    "JPEG": (".jpeg", ".jpg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
_FORMATS = tuple(_SUFFIXES_OF)
IMAGE_SUFFIXES = frozenset(suffix for suffixes in _SUFFIXES_OF.values() for suffix in suffixes)

# A JPEG is decoded to a half, a quarter or an eighth of its size if that leaves at least this many times the
# size that is wanted. Against the full decode of 16 originals of chest-xray (1,032 to 1,944 pixels wide), at
# 224 pixels, in levels of 0 to 255:
#   1 time:  0.31 on average, 29 at most, 2.5 times the full decode's speed
#   2 times: 0.11 on average,  9 at most, 2.1 times
#   3 times: 0.03 on average,  5 at most, 1.8 times
# From 2 on, the error is below that of rounding to whole levels (0.25 on average).
_SCALED_DECODE_GAP = 2

_LONGEST_REASON = 200

_SIXTEEN_BIT_MODES = ("I", "I;16", "I;16L", "I;16B")
_MAX_16_BITS = 65535

_WHITE_IS_ZERO = 0
_PHOTOMETRIC_TAG = 262


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
    if example.path is None:
        raise ValueError(f"example {example.name} has no file")
    return read_image(example.path, image_size, image_size)


def read_image(path: Path, height: int, width: int) -> np.ndarray:
    """Decode one file to RGB and squash it to a size, as the report did (no crop, no padding).

    A JPEG that is much larger is decoded at reduced resolution, which is what its blocks of frequencies are
    made for. Grey stays grey until the end, transparency is left out, and of an animation the first frame is
    taken. Pixels stay where the file has them: a camera's note on how it was held (EXIF) turns nothing. Only
    a TIFF is turned as its own orientation says.

    Grey images of 16 bits keep them, because what their values mean (12 bits in a file of 16, say) shows only
    in all images of a set together. Colours of 16 bits keep the higher 8, as Pillow reads no more.

    Args:
        path: a JPEG, PNG, GIF, BMP, WebP, TIFF or PNM file, whatever its suffix.
        height, width: of the result, in pixels.

    Returns:
        Array of (height, width, 3): uint8, or uint16 for grey images of 16 bits.

    Raises:
        OSError, SyntaxError: what Pillow raises for a file that is truncated or not an image.
        ValueError: its values have no known range (floats, negative or large integers), or it has several
            pages.
        PIL.Image.DecompressionBombError: it has more pixels than Pillow considers sane.
    """
    import numpy as np
    from PIL import Image

    with open_regular(path) as file, _open_image(file) as image:
        pixels = image.width * image.height
        # Pillow only warns between its limit and twice that.
        if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
            raise Image.DecompressionBombError(
                f"{pixels:,} pixels are more than {Image.MAX_IMAGE_PIXELS:,}: it may be made to fill memory"
            )
        _check_pages(image)
        box = None
        if image.size != (width, height):
            drafted = image.draft(None, (_SCALED_DECODE_GAP * width, _SCALED_DECODE_GAP * height))
            # Where the picture ends in the reduced one: not at a whole pixel, if its size is no multiple.
            box = drafted and drafted[1]
        plain = _plain(image)
    if plain.size != (width, height):
        plain = plain.resize((width, height), Image.Resampling.BILINEAR, box=box)
    if plain.mode == "I":
        grey = np.asarray(plain).clip(0, _MAX_16_BITS).astype(np.uint16)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.asarray(plain.convert("RGB"))


def why_unreadable(error: BaseException) -> str:
    """What was raised for an image, as one line that is not too long and holds nothing but text."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    line = "".join(char if char.isprintable() else "?" for char in line)
    return line if len(line) <= _LONGEST_REASON else f"{line[: _LONGEST_REASON - 3]}..."


def _open_image(file: BinaryIO) -> ImageFile:
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError:
        # Pillow's own words hold an address of memory.
        file.seek(0)
        start = file.read(4)
        if not start:
            told = "the file is empty"
        elif start in (b"II*\0", b"MM\0*"):
            told = "it is a TIFF of a kind that Pillow cannot read (64 bits, or an odd number of bands, say)"
        else:
            told = f"the content is none of {', '.join(_FORMATS)}"
        raise UnidentifiedImageError(told) from None


def _check_pages(image: Image) -> None:
    """Refuse a TIFF that is a stack: a second page that is not smaller than the first is no preview of it."""
    if image.format != "TIFF":
        return
    first = image.size
    try:
        image.seek(1)
    except EOFError:
        return
    if image.width >= first[0] and image.height >= first[1]:
        raise ValueError("it holds several pages: save each as a file of its own")
    image.seek(0)


def _plain(image: ImageFile) -> Image:
    """Return the same picture in a mode whose values can be averaged: L or RGB, or I for 16 bits of grey."""
    import numpy as np
    from PIL import Image
    from PIL.TiffImagePlugin import TiffImageFile

    depth_is_cut = _is_cut_to_eight_bits(image)
    image.load()
    if image.mode in _SIXTEEN_BIT_MODES:
        values = np.asarray(image).astype(np.int32)
        if values.min() < 0 or values.max() > _MAX_16_BITS:
            raise ValueError(
                f"its values go from {values.min()} to {values.max()}, beyond 0 to {_MAX_16_BITS}: "
                "save it with 8 or 16 bits, unsigned"
            )
        if isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO:
            raise ValueError("it has 16 bits with 0 for white: save it with 0 for black")
        return Image.fromarray(values)
    if image.mode == "F":
        raise ValueError("its values are floats, whose range is not known: save it with 8 or 16 bits")
    image.info.pop("transparency", None)  # Pillow warns that it is lost
    plain = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    if depth_is_cut and np.asarray(plain).max() <= 16:
        raise ValueError(
            "it has 16 bits a colour but values of 12, of which Pillow reads the higher 4: save it with 8"
        )
    return plain


def _is_cut_to_eight_bits(image: ImageFile) -> bool:
    """Tell whether Pillow drops the lower byte of each value, as it does where colours, or grey with
    transparency, have 16 bits. It shows only before the pixels are loaded."""
    if image.mode in _SIXTEEN_BIT_MODES or not image.tile:
        return False
    args = image.tile[0].args
    raw_mode, *more = args if isinstance(args, tuple) else (args,)
    if image.format == "PPM":
        return bool(more) and isinstance(more[0], int) and more[0] == _MAX_16_BITS
    return image.format in ("PNG", "TIFF") and ";16" in str(raw_mode)
