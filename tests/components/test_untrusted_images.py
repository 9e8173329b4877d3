"""Tests that unusual or fake image files are read or reported with a reason, and that nothing hangs."""

from __future__ import annotations

import os
import socket
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xbench.components.image_files import find_files, list_images
from xbench.components.image_folder import build_folder
from xbench.components.images import describe_unreadable, read_image
from xbench.data.decode import decode

SIDE = 16


def png(mode: str = "RGB", color=(200, 30, 10), **options) -> bytes:
    file = BytesIO()
    Image.new(mode, (SIDE, SIDE), color).save(file, "PNG", **options)
    return file.getvalue()


def jpeg(mode: str = "RGB", color=(200, 30, 10), **options) -> bytes:
    file = BytesIO()
    Image.new(mode, (SIDE, SIDE), color).save(file, "JPEG", **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_of(width: int, height: int, bits: int, color_type: int, rows: bytes, *more: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + data + chunk(b"IEND", b"")


def grey_rows(bits: int = 8) -> bytes:
    return (b"\0" + b"\x80" * (SIDE * bits // 8)) * SIDE


def animated_gif() -> bytes:
    frames = [Image.new("RGB", (SIDE, SIDE), color) for color in ((200, 30, 10), (0, 0, 255))]
    file = BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def turned() -> bytes:
    """Make a JPEG that is red on the left, with an EXIF orientation of 90 degrees."""
    image = Image.new("RGB", (SIDE, SIDE), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, SIDE // 2, SIDE))
    exif = Image.Exif()
    exif[0x0112] = 6
    file = BytesIO()
    image.save(file, "JPEG", exif=exif, quality=95)
    return file.getvalue()


# Content, the colour of its first pixel, and the error that a lossy format may have.
READ = {
    "cmyk.jpg": (jpeg("CMYK", (0, 255, 255, 0)), (255, 0, 0), 4),
    "sixteen-grey.png": (png_of(SIDE, SIDE, 16, 0, grey_rows(16)), (128, 128, 128), 0),
    "sixteen-colour.png": (png_of(SIDE, SIDE, 16, 2, grey_rows(48)), (128, 128, 128), 0),
    "sixteen-alpha.png": (png_of(SIDE, SIDE, 16, 4, grey_rows(32)), (128, 128, 128), 0),
    "one-bit.png": (png("1", 1), (255, 255, 255), 0),
    "palette.png": (png("P", 0, transparency=0), (0, 0, 0), 0),
    "animated.png": (animated_gif(), (200, 30, 10), 4),
    "png-named.jpg": (png(), (200, 30, 10), 0),
    "jpeg-named.png": (jpeg(quality=95), (200, 30, 10), 4),
    "turned.jpg": (turned(), (255, 0, 0), 6),
    "some-text.png": (
        png_of(SIDE, SIDE, 8, 0, grey_rows(), chunk(b"tEXt", b"k\0" + b"x" * 10**5)),
        (128, 128, 128),
        0,
    ),
}

HUGE_TEXT = chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(10**7)))
MUCH_TEXT = chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(10**6))) * 80

# Content, and a part of the reason.
REFUSED = {
    "empty.png": (b"", "the file is empty"),
    "text.png": (b"this is no image\n" * 100, "not one of JPEG"),
    "script.png": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
        "not one of JPEG",
    ),
    "pickle.jpg": (b"\x80\x04\x95" + bytes(100), "not one of JPEG"),
    "short.png": (png(color=(1, 2, 3))[:60], "Error"),
    "header.png": (png()[:20], "Truncated File Read"),
    "short.jpg": (jpeg(quality=95)[:-40][:500], "Error"),
    "bomb.png": (png_of(30_000, 30_000, 1, 0, bytes(10)), "900000000 pixels"),
    "wide-bomb.png": (png_of(2**31 - 1, 2**31 - 1, 8, 2, b""), "Bomb"),
    "ten-times.png": (png_of(10_000, 9_999, 1, 0, bytes(10)), "99,990,000 pixels"),
    "huge-text.png": (png_of(SIDE, SIDE, 8, 0, grey_rows(), HUGE_TEXT), "MAX_TEXT_CHUNK"),
    "much-text.png": (png_of(SIDE, SIDE, 8, 0, grey_rows(), MUCH_TEXT), "MAX_TEXT_MEMORY"),
    "no-pixels.png": (png_of(0, 0, 8, 0, b""), "Error"),
    "broken.png": (png()[:40] + b"\xff" * 8 + png()[48:], "Error"),
}


@pytest.mark.parametrize("name", READ)
def test_unusual_files_are_read(tmp_path, name):
    content, expected, within = READ[name]
    (tmp_path / name).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for side in (SIDE, SIDE // 2):
            image = read_image(tmp_path / name, side, side)
            first = image[0, 0].astype(int) // (257 if image.dtype == np.uint16 else 1)
            assert abs(first - expected).max() <= within


def test_exif_orientation_is_ignored(tmp_path):
    (tmp_path / "turned.jpg").write_bytes(turned())
    image = read_image(tmp_path / "turned.jpg", SIDE, SIDE).astype(int)
    red, blue = image[:, :6, 0], image[:, -6:, 2]  # left and right, as in the file
    assert red.min() > 240 and blue.min() > 240


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_unreadable_file_has_a_reason(tmp_path, name):
    content, expected = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Exception) as caught:
        read_image(tmp_path / name, SIDE, SIDE)
    assert not isinstance(caught.value, MemoryError)
    reason = describe_unreadable(caught.value)
    assert expected in reason
    assert "\n" not in reason and len(reason) <= 200
    assert " at 0x" not in reason


def test_reasons_are_short_printable_lines():
    reason = describe_unreadable(ValueError("first\n\tsecond\x1b[31m " + "x" * 1000))
    assert reason.startswith("ValueError: first second?[31m xxx")
    assert len(reason) == 200 and reason.endswith("...")


@pytest.fixture
def oddities(tmp_path, monkeypatch) -> Path:
    """Make a class with an image, and with every type of file that can have the name of an image."""
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path / "cache"))
    for part in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / "set" / part / name).mkdir(parents=True)
            (tmp_path / "set" / part / name / "image.png").write_bytes(png())
    folder = tmp_path / "set/train/a"
    monkeypatch.chdir(folder)  # a socket's name must be short
    os.mkfifo("pipe.png")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket.png")
    os.symlink("/dev/zero", "device.png")
    os.symlink("nowhere.png", "nothing.png")
    os.symlink("loop.png", "loop.png")
    os.symlink("image.png", "link.png")
    os.symlink("..", "above.png")
    os.mkdir("folder.png")
    (folder / "folder.png/inner.png").write_bytes(png())
    (folder / "folder.png/self").symlink_to("../folder.png")
    return tmp_path / "set"


SPECIAL = ("device.png", "loop.png", "nothing.png", "pipe.png", "socket.png")


def test_only_regular_files_are_listed(oddities):
    (oddities / "train/a/above.png").unlink()
    found = find_files(oddities / "train/a")
    assert [str(name) for name in found.images] == ["folder.png/inner.png", "image.png", "link.png"]
    assert tuple(map(str, found.irregular)) == SPECIAL


@pytest.mark.parametrize("name", [*SPECIAL, "folder.png"])
def test_nothing_else_is_opened(oddities, name):
    with pytest.raises(OSError) as caught:
        read_image(oddities / "train/a" / name, SIDE, SIDE)
    assert len(describe_unreadable(caught.value)) < 300


def test_set_with_all_oddities_is_decoded(oddities):
    (oddities / "train/a/above.png").unlink()
    for name, (content, *_) in (READ | {k: v for k, v in REFUSED.items() if "text" in k}).items():
        (oddities / "train/b" / name).write_bytes(content)
    (oddities / "train/b/memory.png").symlink_to("/proc/self/mem")  # a regular file that cannot be read
    dataset = build_folder(str(oddities), image_size=SIDE)
    assert any("not regular files" in note and "device.png" in note for note in dataset.notes)
    data = decode(dataset, "odd", "", False, lambda done, total: None)
    reasons = dict(data.unreadable)
    assert set(reasons) == {
        f"train/b/{name}" for name in ("text.png", "huge-text.png", "much-text.png", "memory.png")
    }
    assert reasons["train/b/memory.png"] == "cannot be read: Input/output error"
    assert all("\n" not in reason and len(reason) <= 200 for reason in reasons.values())
    assert len(data.rows) == len(dataset.examples) - len(reasons)


def test_link_to_a_parent_folder_ends(oddities):
    assert len(list_images(oddities / "train")) < 30


def test_deeply_nested_folders_are_listed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(1100):
        os.mkdir("d")
        os.chdir("d")
    Path("deep.png").touch()
    (name,) = list_images(tmp_path)
    assert len(name.parts) == 1101
    for _ in range(1100):  # `tmp_path` cannot remove such deep folders
        Path("deep.png").unlink(missing_ok=True)
        os.chdir("..")
        os.rmdir("d")


def test_arrays_have_the_requested_shape(tmp_path):
    (tmp_path / "i.png").write_bytes(png())
    image = read_image(tmp_path / "i.png", 3, 5)
    assert (image.shape, image.dtype) == ((3, 5, 3), np.uint8)
