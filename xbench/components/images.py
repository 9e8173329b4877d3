"""Read an image file at the size of a dataset's images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from xbench.errors import XbenchError
from xbench.storage.atomic import open_regular

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

    from xbench.components.image_dataset import Example

# The formats that are read, whatever a file's suffix says. Pillow supports more, but runs other programs for
# some of them.
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

# A JPEG is decoded at a half, a quarter or an eighth of its size if the result is still at least this many
# times the requested size. These differences from a full decode, in levels of 0 to 255, were measured on 16
# images of chest-xray (1,032 to 1,944 pixels wide) that were reduced to 224 pixels:
#   gap 1: 0.31 on average, 29 at most; 2.5 times as fast as the full decode
#   gap 2: 0.11 on average,  9 at most; 2.1 times as fast
#   gap 3: 0.03 on average,  5 at most; 1.8 times as fast
# From 2 on, the difference is smaller than the error of rounding to whole levels (0.25 on average).
_SCALED_DECODE_GAP = 2

_MAX_REASON_CHARS = 200

_SIXTEEN_BIT_MODES = ("I", "I;16", "I;16L", "I;16B")
_MAX_16_BITS = 65535

_WHITE_IS_ZERO = 0
_PHOTOMETRIC_TAG = 262


def check_image_size(image_size: int, dataset: str) -> None:
    """Check the height and width in pixels that a suite sets.

    Raises:
        XbenchError: the size is not an integer, or is out of range.
    """
    if not isinstance(image_size, int) or not 8 <= image_size <= 4096:
        raise XbenchError(
            f"image_size {image_size} of {dataset} is not an integer from 8 to 4096",
            hint="most models take 224",
        )


def read_square(example: Example, image_size: int) -> np.ndarray:
    """Read an example's file with `read_image`, at `image_size` pixels in height and width."""
    if example.path is None:
        raise ValueError(f"example {example.name} has no file")
    return read_image(example.path, image_size, image_size)


def read_image(path: Path, height: int, width: int) -> np.ndarray:
    """Decode a file to RGB and squash it to a size without cropping or padding, as the report did.

    A JPEG that is much larger than the result is decoded at reduced resolution, which its format makes cheap.
    Greyscale is converted to RGB only at the end, transparency is dropped, and only the first frame of an
    animation is read. The orientation in EXIF data is ignored; only the orientation tag of a TIFF is applied.

    16-bit greyscale images keep all their bits, because only the whole set shows what range the values have
    (12 bits in a 16-bit file, say). 16-bit colour images are cut to the higher 8 bits, which is all that
    Pillow reads.

    Args:
        path: a JPEG, PNG, GIF, BMP, WebP, TIFF or PNM file, whatever its suffix.
        height, width: size of the result, in pixels.

    Returns:
        An array of shape (height, width, 3): uint16 for 16-bit greyscale images, uint8 for all others.

    Raises:
        OSError, SyntaxError: the file is truncated or not an image (raised by Pillow).
        ValueError: the range of the values is unknown (floats, negative or large integers), or the file has
            several pages.
        PIL.Image.DecompressionBombError: the image has more pixels than Pillow's limit.
    """
    import numpy as np
    from PIL import Image

    with open_regular(path) as file, _open_image(file) as image:
        pixels = image.width * image.height
        # Pillow only warns between its limit and twice that.
        if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
            raise Image.DecompressionBombError(
                f"{pixels:,} pixels are more than {Image.MAX_IMAGE_PIXELS:,}: it may be meant to fill memory"
            )
        _check_pages(image)
        box = None
        if image.size != (width, height):
            drafted = image.draft(None, (_SCALED_DECODE_GAP * width, _SCALED_DECODE_GAP * height))
            # The edges of the picture in the reduced image, which may fall between pixels.
            box = drafted and drafted[1]
        plain = _convert_mode(image)
    if plain.size != (width, height):
        plain = plain.resize((width, height), Image.Resampling.BILINEAR, box=box)
    if plain.mode == "I":
        grey = np.asarray(plain).clip(0, _MAX_16_BITS).astype(np.uint16)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.asarray(plain.convert("RGB"))


def describe_unreadable(error: BaseException) -> str:
    """Describe the exception that an image raised, in one short line of printable characters."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    line = "".join(char if char.isprintable() else "?" for char in line)
    return line if len(line) <= _MAX_REASON_CHARS else f"{line[: _MAX_REASON_CHARS - 3]}..."


def _open_image(file: BinaryIO) -> ImageFile:
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError:
        # Pillow's own message contains a memory address.
        file.seek(0)
        start = file.read(4)
        if not start:
            reason = "the file is empty"
        elif start in (b"II*\0", b"MM\0*"):
            reason = "Pillow cannot read this kind of TIFF (with 64 bits or an unusual number of bands, say)"
        else:
            reason = f"the content is not one of {', '.join(_FORMATS)}"
        raise UnidentifiedImageError(reason) from None


def _check_pages(image: Image) -> None:
    """Refuse a TIFF with several pages; a second page that is smaller than the first is only a preview."""
    if image.format != "TIFF":
        return
    first = image.size
    try:
        image.seek(1)
    except EOFError:
        return
    if image.width >= first[0] and image.height >= first[1]:
        raise ValueError("it has several pages: save each page as a separate file")
    image.seek(0)


def _convert_mode(image: ImageFile) -> Image:
    """Convert an image to a mode whose values can be averaged: L or RGB, or I for 16-bit greyscale."""
    import numpy as np
    from PIL import Image
    from PIL.TiffImagePlugin import TiffImageFile

    depth_is_cut = _is_cut_to_eight_bits(image)
    image.load()
    if image.mode in _SIXTEEN_BIT_MODES:
        values = np.asarray(image).astype(np.int32)
        if values.min() < 0 or values.max() > _MAX_16_BITS:
            raise ValueError(
                f"its values range from {values.min()} to {values.max()}, outside 0 to {_MAX_16_BITS}: "
                "save it as unsigned 8-bit or 16-bit integers"
            )
        if isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO:
            raise ValueError("it is a 16-bit image in which 0 is white: save it with 0 as black")
        return Image.fromarray(values)
    if image.mode == "F":
        raise ValueError("its values are floats with an unknown range: save it with 8 or 16 bits")
    image.info.pop("transparency", None)  # otherwise Pillow warns that it is dropped
    plain = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    if depth_is_cut and np.asarray(plain).max() <= 16:
        raise ValueError(
            "it has 16 bits per colour but uses only 12, of which Pillow reads the higher 4: save it with 8"
        )
    return plain


def _is_cut_to_eight_bits(image: ImageFile) -> bool:
    """Check whether Pillow drops the lower byte of each value, before the pixels are loaded.

    It does so for 16-bit colour, and for 16-bit greyscale with transparency.
    """
    if image.mode in _SIXTEEN_BIT_MODES or not image.tile:
        return False
    args = image.tile[0].args
    raw_mode, *more = args if isinstance(args, tuple) else (args,)
    if image.format == "PPM":
        return bool(more) and isinstance(more[0], int) and more[0] == _MAX_16_BITS
    return image.format in ("PNG", "TIFF") and ";16" in str(raw_mode)
