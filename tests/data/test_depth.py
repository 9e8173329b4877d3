"""Images of 16 bits are scaled to 8, all of a set by the same white."""

from __future__ import annotations

import numpy as np
import pytest

from xbench.components.image_dataset import Dataset, Example
from xbench.data.decode import decode
from xbench.data.depth import to_eight_bits, white_level


@pytest.fixture
def decoded_of(tmp_path, monkeypatch):
    """Decodes images of one value each, uint16 or, where the value is below zero, uint8."""
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path / "cache"))

    def decoded(*values: int):
        def read(example: Example) -> np.ndarray:
            value = values[int(example.name)]
            return np.full((2, 2, 3), abs(value), np.uint8 if value < 0 else np.uint16)

        examples = tuple(
            Example(f"{i:02}", i % 2, "test" if i % 3 == 2 else "train", content=str((i, values)))
            for i in range(len(values))
        )
        dataset = Dataset(("a", "b"), "b", (3, 2, 2), examples, read, notes=("a note",))
        return decode(dataset, "set", "", False, lambda done, total: None)

    return decoded


def shades(data) -> list[int]:
    with data.reader(len(data.rows)) as reader:
        return reader.read(data.rows)[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(
    ("highest", "white"),
    [
        ([0], 255),
        ([255], 255),
        ([256], 1023),
        ([1023, 12], 1023),
        ([1024], 4095),
        ([5, 4095], 4095),
        ([4096], 16383),
        ([16384], 65535),
        ([65535, 3], 65535),
    ],
)
def test_white_is_the_largest_value_of_a_usual_depth(highest, white):
    assert white_level(highest) == white


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, 0), (128, 0), (129, 1), (257 * 40, 40), (257 * 128 + 128, 128), (65406, 254), (65535, 255)],
)
def test_values_are_rounded_to_the_nearest_level(value, expected):
    assert to_eight_bits(np.array([value], np.uint16), 65535).tolist() == [expected]


def test_the_whole_range_is_not_worth_a_note(decoded_of):
    data = decoded_of(65535, 257 * 40, 257 * 100, -7)
    assert shades(data) == [255, 40, 100, 7]
    assert data.notes == ("a note",)


def test_12_bits_are_scaled_alike_and_noted_also_from_the_cache(decoded_of):
    for _ in range(2):
        data = decoded_of(4095, 2048, 1024, -200)
        assert shades(data) == [255, 128, 64, 200]
        assert data.notes[0] == "a note"
        assert data.notes[1:] == (
            "3 16-bit images have no value above 4,095; all were scaled with 4,095 as white (12 bits)",
        )


def test_dark_ones_among_others_stay_dark_and_are_counted(decoded_of):
    data = decoded_of(65535, 4095, 4096, 100)
    assert shades(data) == [255, 16, 16, 0]
    assert data.notes[1].startswith("2 of 4 16-bit images have no value above 4,095 and are nearly black")


def test_sets_of_8_bits_have_no_note(decoded_of):
    assert decoded_of(-1, -2, -3).notes == ("a note",)
