"""Tests of reading image files: formats, modes, and large JPEGs at reduced resolution."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xbench.components.image_files import list_images
from xbench.components.images import read_image

SIDE = 16


def full_decode(path: Path, side: int) -> np.ndarray:
    """Decode an image at full resolution, and then resize it."""
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    return np.asarray(rgb.resize((side, side), Image.Resampling.BILINEAR)).astype(int)


def halves(left, right, mode: str) -> Image.Image:
    """Make an image of 64 x 64 pixels, with one value on the left and another on the right."""
    image = Image.new(mode, (64, 64), left)
    image.paste(right, (32, 0, 64, 64))
    return image


def assert_halves(
    path: Path, left: tuple[int, ...], right: tuple[int, ...], within: int = 0, dtype: type = np.uint8
) -> None:
    """Check an image at its own size and at a smaller one."""
    for side in (64, SIDE):
        pixels = read_image(path, side, side)
        assert (pixels.dtype, pixels.shape) == (dtype, (side, side, 3))
        middle = side // 2
        for part, expected in ((pixels[:, : middle - 2], left), (pixels[:, middle + 2 :], right)):
            assert abs(part.astype(int) - expected).max() <= within


RED, TEAL = (200, 30, 10), (0, 130, 140)


@pytest.mark.parametrize("suffix", ["png", "jpeg"])
class TestKindsOfBoth:
    within: dict[str, int] = {"png": 0, "jpeg": 3}  # noqa: RUF012

    def test_grey(self, tmp_path, suffix):
        path = tmp_path / f"image.{suffix}"
        halves(40, 220, "L").save(path)
        assert_halves(path, (40,) * 3, (220,) * 3, self.within[suffix])

    def test_rgb(self, tmp_path, suffix):
        path = tmp_path / f"image.{suffix}"
        halves(RED, TEAL, "RGB").save(path)
        assert_halves(path, RED, TEAL, self.within[suffix])


class TestKindsOfPng:
    def test_black_and_white(self, tmp_path):
        halves(0, 1, "1").save(tmp_path / "image.png")
        assert_halves(tmp_path / "image.png", (0,) * 3, (255,) * 3)

    def test_black_and_white_is_averaged_when_made_smaller(self, tmp_path):
        stripes = np.tile(np.array([0, 255], dtype=np.uint8), (64, 32))
        Image.fromarray(stripes).convert("1", dither=Image.Dither.NONE).save(tmp_path / "image.png")
        assert abs(read_image(tmp_path / "image.png", SIDE, SIDE).astype(int) - 127).max() <= 16

    def test_palette(self, tmp_path):
        image = Image.new("P", (64, 64), 7)
        image.putpalette([*[0] * 21, *RED, *TEAL])
        image.paste(8, (32, 0, 64, 64))
        image.save(tmp_path / "image.png")
        assert_halves(tmp_path / "image.png", RED, TEAL)

    def test_colours_of_a_palette_are_averaged_not_their_numbers(self, tmp_path):
        image = Image.new("P", (64, 64), 0)
        image.putpalette([0, 0, 0, 200, 0, 0, 200, 0, 0])
        image.putdata([0, 2] * 2048)
        image.save(tmp_path / "image.png")
        pixels = read_image(tmp_path / "image.png", SIDE, SIDE)
        assert abs(pixels[..., 0].astype(int) - 100).max() <= 13
        assert (pixels[..., 1:] == 0).all()

    @pytest.mark.parametrize("transparency", [0, b"\x00\x80\xff"])
    def test_transparency_of_a_palette_is_left_out_quietly(self, tmp_path, transparency):
        image = Image.new("P", (64, 64), 0)
        image.putpalette([*RED, *TEAL, 0, 0, 0])
        image.paste(1, (32, 0, 64, 64))
        image.save(tmp_path / "image.png", transparency=transparency)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert_halves(tmp_path / "image.png", RED, TEAL)

    def test_rgba_shows_its_colours_whatever_its_transparency(self, tmp_path):
        halves((*RED, 0), (*TEAL, 255), "RGBA").save(tmp_path / "image.png")
        assert_halves(tmp_path / "image.png", RED, TEAL)

    def test_la_shows_its_grey_whatever_its_transparency(self, tmp_path):
        halves((40, 0), (220, 128), "LA").save(tmp_path / "image.png")
        assert_halves(tmp_path / "image.png", (40,) * 3, (220,) * 3)

    @pytest.mark.parametrize(("mode", "value"), [("L", 40), ("RGB", RED)])
    def test_one_transparent_colour_is_left_out_quietly(self, tmp_path, mode, value):
        image = halves(value, value, mode)
        image.save(tmp_path / "image.png", transparency=value)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            expected = value if mode == "RGB" else (value,) * 3
            assert_halves(tmp_path / "image.png", expected, expected)

    @pytest.mark.parametrize("value", [0, 128, 4095, 65535])
    def test_16_bits_of_grey_are_kept(self, tmp_path, value):
        pixels = np.full((64, 64), value, dtype=np.uint16)
        pixels[:, 32:] = 300
        Image.fromarray(pixels).save(tmp_path / "image.png")
        with Image.open(tmp_path / "image.png") as image:
            assert image.mode.startswith("I")
        assert_halves(tmp_path / "image.png", (value,) * 3, (300,) * 3, dtype=np.uint16)

    def test_first_frame_of_an_animation_is_read(self, tmp_path):
        first, second = halves(RED, TEAL, "RGB"), halves(TEAL, RED, "RGB")
        first.save(tmp_path / "image.png", save_all=True, append_images=[second], duration=100)
        with Image.open(tmp_path / "image.png") as image:
            assert image.n_frames == 2
        assert_halves(tmp_path / "image.png", RED, TEAL)


class TestOtherFormats:
    @pytest.mark.parametrize(
        ("name", "form", "within"),
        [
            ("i.bmp", "BMP", 0),
            ("i.webp", "WEBP", 6),
            ("i.tif", "TIFF", 0),
            ("i.gif", "GIF", 0),
            ("i.jfif", "JPEG", 3),
            ("i.ppm", "PPM", 0),
        ],
    )
    def test_colours(self, tmp_path, name, form, within):
        halves(RED, TEAL, "RGB").save(tmp_path / name, format=form)
        assert list_images(tmp_path) == [Path(name)]
        assert_halves(tmp_path / name, RED, TEAL, within)

    @pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "packbits"])
    def test_tiff_however_it_is_compressed(self, tmp_path, compression):
        halves(40, 220, "L").save(tmp_path / "i.tif", compression=compression)
        assert_halves(tmp_path / "i.tif", (40,) * 3, (220,) * 3)

    @pytest.mark.parametrize(
        ("mode", "left", "right", "shown_left", "shown_right"),
        [
            ("1", 0, 1, (0,) * 3, (255,) * 3),
            ("LA", (40, 0), (220, 9), (40,) * 3, (220,) * 3),
            ("RGBA", (*RED, 0), (*TEAL, 9), RED, TEAL),
            ("CMYK", (255, 0, 0, 0), (0, 0, 0, 155), (0, 255, 255), (100,) * 3),
        ],
    )
    def test_modes_of_tiff(self, tmp_path, mode, left, right, shown_left, shown_right):
        halves(left, right, mode).save(tmp_path / "i.tif")
        assert_halves(tmp_path / "i.tif", shown_left, shown_right)

    def test_a_palette_in_a_tiff(self, tmp_path):
        halves(RED, TEAL, "RGB").quantize(2).save(tmp_path / "i.tif")
        assert_halves(tmp_path / "i.tif", RED, TEAL)

    @pytest.mark.parametrize("name", ["i.tif", "i.pgm"])
    def test_16_bits_of_grey(self, tmp_path, name):
        Image.fromarray(np.full((64, 64), 3000, np.uint16)).save(tmp_path / name)
        assert_halves(tmp_path / name, (3000,) * 3, (3000,) * 3, dtype=np.uint16)

    def test_a_pgm_that_declares_12_bits_is_scaled_by_them(self, tmp_path):
        (tmp_path / "i.pgm").write_bytes(b"P5 64 64 4095\n" + np.full(64 * 64, 4095, ">u2").tobytes())
        assert_halves(tmp_path / "i.pgm", (65535,) * 3, (65535,) * 3, dtype=np.uint16)

    @pytest.mark.parametrize(
        ("pixels", "complaint"),
        [
            (np.full((8, 8), 0.5, np.float32), "floats with an unknown range"),
            (np.full((8, 8), -1000, np.int32), "its values range from -1000 to -1000, outside 0 to 65535"),
            (np.full((8, 8), 70000, np.int32), "its values range from 70000 to 70000"),
        ],
    )
    def test_values_without_a_known_range_are_refused(self, tmp_path, pixels, complaint):
        Image.fromarray(pixels).save(tmp_path / "i.tif")
        with pytest.raises(ValueError, match=complaint):
            read_image(tmp_path / "i.tif", 8, 8)

    def test_16_bit_image_with_0_as_white_is_refused(self, tmp_path):
        image = Image.fromarray(np.full((8, 8), 3000, np.uint16))
        image.save(tmp_path / "i.tif", tiffinfo={262: 0})
        with Image.open(tmp_path / "i.tif") as saved:
            assert saved.tag_v2[262] == 0
        with pytest.raises(ValueError, match="0 is white"):
            read_image(tmp_path / "i.tif", 8, 8)

    def test_tiff_with_several_pages_is_refused(self, tmp_path):
        pages = [Image.new("L", (8, 8), shade) for shade in (1, 2, 3)]
        pages[0].save(tmp_path / "i.tif", save_all=True, append_images=pages[1:])
        with pytest.raises(ValueError, match="several pages"):
            read_image(tmp_path / "i.tif", 8, 8)

    def test_a_preview_in_a_tiff_is_not_a_page(self, tmp_path):
        image = halves(40, 220, "L")
        image.save(tmp_path / "i.tif", save_all=True, append_images=[image.resize((8, 8))])
        assert_halves(tmp_path / "i.tif", (40,) * 3, (220,) * 3)

    @pytest.mark.parametrize(("value", "is_read"), [(255, False), (4095, False), (5000, True), (65535, True)])
    def test_16_bit_colour_image_that_uses_12_bits_is_refused(self, tmp_path, value, is_read):
        (tmp_path / "i.ppm").write_bytes(b"P6 8 8 65535\n" + np.full(8 * 8 * 3, value, ">u2").tobytes())
        if is_read:
            assert (read_image(tmp_path / "i.ppm", 8, 8) == round(value * 255 / 65535)).all()
            return
        with pytest.raises(ValueError, match="16 bits per colour but uses only 12"):
            read_image(tmp_path / "i.ppm", 8, 8)

    def test_message_names_a_tiff_that_pillow_cannot_read(self, tmp_path):
        (tmp_path / "i.tif").write_bytes(b"II*\0" + bytes(100))
        with pytest.raises(OSError, match="Pillow cannot read this kind of TIFF"):
            read_image(tmp_path / "i.tif", 8, 8)


def test_cmyk(tmp_path):
    halves((255, 0, 0, 0), (0, 0, 0, 155), "CMYK").save(tmp_path / "image.jpeg", quality=95)
    assert_halves(tmp_path / "image.jpeg", (0, 255, 255), (100, 100, 100), within=4)


@pytest.mark.parametrize(
    ("name", "mode"),
    [("i.png", "L"), ("i.png", "RGB"), ("i.png", "RGBA"), ("i.png", "P"), ("i.jpeg", "L"), ("i.jpeg", "RGB")],
)
def test_file_of_the_right_size_is_decoded_exactly(tmp_path, name, mode):
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(tmp_path / name)
    with Image.open(tmp_path / name) as image:
        expected = np.asarray(image.convert("RGB"))
    assert read_image(tmp_path / name, 50, 70).tobytes() == expected.tobytes()


def test_png_files_are_reduced_exactly(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    for mode in ("L", "RGB"):
        Image.fromarray(noise).convert(mode).save(tmp_path / "image.png")
        assert (read_image(tmp_path / "image.png", 32, 32) == full_decode(tmp_path / "image.png", 32)).all()


def test_small_files_are_enlarged_exactly(tmp_path):
    ramp = np.arange(400, dtype=np.uint8).reshape(20, 20)
    Image.fromarray(ramp).save(tmp_path / "image.jpeg")
    assert (read_image(tmp_path / "image.jpeg", 64, 64) == full_decode(tmp_path / "image.jpeg", 64)).all()


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [(64 * SIDE, 64 * SIDE), (1237, 911), (130, 2000), (SIDE * 2, SIDE * 2)])
def test_reduced_decode_is_close_to_the_full_decode(tmp_path, mode, size):
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 60 * np.sin(9 * x / width + phase) + 60 * np.cos(7 * y / height) for phase in (0, 1, 2)]
    Image.fromarray(np.stack(waves, axis=-1).astype(np.uint8)).convert(mode).save(
        tmp_path / "image.jpeg", quality=90
    )
    difference = abs(read_image(tmp_path / "image.jpeg", 24, 24) - full_decode(tmp_path / "image.jpeg", 24))
    assert difference.mean() < 0.5
    assert difference.max() <= 4


def test_large_jpeg_is_decoded_at_reduced_resolution(tmp_path, monkeypatch):
    Image.new("L", (1600, 1200), 90).save(tmp_path / "image.jpeg")
    resized = []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image,
        "resize",
        lambda self, *a, **k: resized.append((self.mode, self.size)) or resize(self, *a, **k),
    )
    read_image(tmp_path / "image.jpeg", 224, 224)
    read_image(tmp_path / "image.jpeg", 50, 100)
    assert resized == [("L", (800, 600)), ("L", (200, 150))]


def test_decompression_bomb_is_an_error(tmp_path, monkeypatch):
    Image.new("L", (100, 100)).save(tmp_path / "image.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    assert read_image(tmp_path / "image.png", 8, 8).shape == (8, 8, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9_999)  # Pillow's own error begins at twice its limit
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(Image.DecompressionBombError, match="10,000 pixels"):
            read_image(tmp_path / "image.png", 8, 8)


@pytest.mark.parametrize("suffix", ["png", "jpeg"])
def test_truncated_file_raises_even_at_reduced_resolution(tmp_path, suffix):
    path = tmp_path / f"image.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (600, 800), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(OSError):
        read_image(path, 32, 32)


def test_threads_read_the_same_pixels(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "image.jpeg")
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda _: read_image(tmp_path / "image.jpeg", 64, 64), range(20)))
    assert all((image == images[0]).all() for image in images)


def test_images_are_listed_by_relative_names_in_order(tmp_path):
    for name in ("b.png", "a/z.JPG", "a/._z.JPG", "a/b/c.jpeg", ".x/d.png", "__MACOSX/e.png", "note.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a.png").mkdir()
    assert [str(path) for path in list_images(tmp_path)] == ["a/b/c.jpeg", "a/z.JPG", "b.png"]


@pytest.mark.parametrize("side", [64, 128, 224])
def test_reduced_decode_of_real_images_is_close_to_the_full_decode(real_images, side):
    originals = real_images.with_name("chest_xray_full")
    if not originals.is_dir():
        pytest.skip(f"no real images in {originals}")
    differences = [
        abs(read_image(originals / name, side, side) - full_decode(originals / name, side))
        for name in list_images(originals)
    ]
    assert len(differences) == 16
    assert np.mean(differences) < 0.25  # rounding to whole levels costs as much
    assert max(difference.mean() for difference in differences) < 0.5
    assert max(difference.max() for difference in differences) <= 12


def test_real_images_of_the_right_size_are_decoded_exactly(real_images):
    for name in list_images(real_images)[::500]:
        with Image.open(real_images / name) as image:
            expected = np.asarray(image.convert("RGB"))
        assert read_image(real_images / name, 224, 224).tobytes() == expected.tobytes()
