"""Decoded images: right pixels, and unreadable ones named."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from tests.data.raw_images import (
    CHANNELS,
    HEIGHT,
    IMAGE_BYTES,
    WIDTH,
    assert_pixels_are_those_of_the_files,
    decoded,
    pixels_of,
)
from xbench.errors import XbenchError


def test_pixels_are_what_reading_gives(images):
    data = decoded(images.dataset())
    assert data.pixels_path.stat().st_size == 6 * IMAGE_BYTES
    assert_pixels_are_those_of_the_files(data, images, {e.name for e in images.examples})


def test_what_is_known_of_the_images_goes_with_their_pixels(images):
    data = decoded(images.dataset(*reversed(images.examples)))
    with data.reader(1) as reader:
        for place, row in enumerate(data.rows):
            pixels = reader.read([row])[0]
            (example,) = [e for e in images.examples if np.array_equal(images.read(e), pixels)]
            assert data.labels[place] == example.label
            assert data.is_test[place] == (example.split == "test")
            assert data.groups[place] == example.group
    assert (data.labels.dtype, data.is_test.dtype) == (np.int64, np.bool_)
    assert (data.name, data.stand_in, data.unreadable) == ("pictures", "made up", ())
    assert (data.classes, data.positive) == (("NORMAL", "PNEUMONIA"), "PNEUMONIA")
    assert (data.shape, data.notes) == ((CHANNELS, HEIGHT, WIDTH), ("a note",))


def test_the_order_in_which_a_factory_lists_does_not_matter(images):
    first = decoded(images.dataset())
    second = decoded(images.dataset(*reversed(images.examples)))
    assert second.fingerprint == first.fingerprint
    assert np.array_equal(second.labels, first.labels)
    assert set(images.reads.values()) == {1}


def test_an_array_that_is_not_contiguous_is_written_as_it_looks(images):
    dataset = replace(images.dataset(), read=lambda e: images.read(e)[::-1, :, ::-1])
    data = decoded(dataset)
    expected = [images.read(e)[::-1, :, ::-1] for e in images.examples]
    assert np.array_equal(pixels_of(data), expected)


def test_rows_are_read_in_any_order_and_again(images):
    data = decoded(images.dataset())
    with data.reader(4) as reader:
        pixels = reader.read([5, 0, 5, 3])
        for place, index in enumerate([5, 0, 5, 3]):
            assert np.array_equal(pixels[place], images.read(images.examples[index]))
        assert reader.read(np.array([2])).shape == (1, HEIGHT, WIDTH, CHANNELS)
        assert reader.read([]).shape == (0, HEIGHT, WIDTH, CHANNELS)


def test_a_reader_has_one_buffer(images):
    data = decoded(images.dataset())
    with data.reader(3) as reader:
        first = reader.read([0, 1])
        second = reader.read([2, 3, 4])
        assert np.shares_memory(first, second)
        assert np.array_equal(first[0], images.read(images.examples[2]))


def test_a_reader_of_a_file_that_ends_early_says_so(images):
    data = decoded(images.dataset())
    os.truncate(data.pixels_path, 3 * IMAGE_BYTES - 1)
    with data.reader(1) as reader:
        reader.read([1])
        with pytest.raises(OSError, match=r"pixels\.u8 ends within row 2"):
            reader.read([2])


def test_a_closed_reader_gives_its_file_back(images):
    data = decoded(images.dataset())
    with data.reader(1) as reader:
        pass
    with pytest.raises(OSError):
        reader.read([0])


def test_an_image_that_cannot_be_decoded_is_left_out_and_named(images):
    images.broken = {"image-1", "image-4"}
    for _ in range(2):  # decoded, then cached
        data = decoded(images.dataset())
        assert data.unreadable == (
            ("image-1", "ValueError: image-1 is garbled"),
            ("image-4", "ValueError: image-4 is garbled"),
        )
        assert data.labels.tolist() == [0, 0, 1, 1]
        assert data.is_test.tolist() == [False, True, False, True]
        assert data.groups == ("train-0", "test-1", "train-1", "test-2")
    images.broken = set()
    assert_pixels_are_those_of_the_files(data, images, {"image-0", "image-2", "image-3", "image-5"})


def test_a_file_that_cannot_be_read_is_left_out_and_named(images):
    (images.folder / "0.raw").unlink()
    (images.folder / "3.raw").unlink()
    (images.folder / "3.raw").mkdir()
    data = decoded(images.dataset())
    assert data.unreadable == (
        ("image-0", "cannot be read: No such file or directory"),
        ("image-3", "cannot be read: Is a directory"),
    )
    assert set(images.reads) == {"image-1", "image-2", "image-4", "image-5"}
    assert_pixels_are_those_of_the_files(data, images, set(images.reads))


def test_a_file_that_can_be_read_again_is_back(images):
    content = (images.folder / "3.raw").read_bytes()
    (images.folder / "3.raw").unlink()
    without = decoded(images.dataset())
    (images.folder / "3.raw").write_bytes(content)
    data = decoded(images.dataset())
    assert data.unreadable == ()
    assert data.fingerprint != without.fingerprint
    assert_pixels_are_those_of_the_files(data, images, {e.name for e in images.examples})


def test_leaving_an_image_out_changes_the_fingerprint(images):
    data = decoded(images.dataset())
    images.broken = {"image-5"}
    shutil.rmtree(data.pixels_path.parent)
    assert decoded(images.dataset()).fingerprint != data.fingerprint


@pytest.mark.parametrize("missing", [False, True])
def test_strict_stops_at_unreadable_images(images, missing):
    if missing:
        (images.folder / "1.raw").unlink()
    images.broken = {"image-1", "image-4"}
    reason = "cannot be read: No such file" if missing else "ValueError: image-1 is garbled"
    for _ in range(2):  # decoded, then cached
        with pytest.raises(XbenchError) as caught:
            decoded(images.dataset(), strict=True)
        message = caught.value.message
        assert message.startswith(f"pictures: 2 of 6 images are unreadable; image-1: {reason}")
        assert "strict" in caught.value.hint
    images.broken = set()


def test_strict_lets_good_images_through(images):
    assert decoded(images.dataset(), strict=True).fingerprint == decoded(images.dataset()).fingerprint


def test_no_readable_image_is_an_error(images):
    images.broken = {e.name for e in images.examples}
    with pytest.raises(XbenchError, match="pictures: none of its 6 images is readable; ValueError: image-0"):
        decoded(images.dataset())


@pytest.mark.parametrize("also_in_test", [False, True])
def test_a_class_without_a_readable_image_to_train_on_is_an_error(images, also_in_test):
    images.broken = {"image-1", "image-3"} | ({"image-5"} if also_in_test else set())
    for _ in range(2):  # decoded, then cached
        with pytest.raises(XbenchError) as caught:
            decoded(images.dataset())
        assert caught.value.message == (
            "pictures: class 'PNEUMONIA' has no readable training image; "
            "image-1: ValueError: image-1 is garbled"
        )


def test_a_class_may_lose_its_test_images(images):
    images.broken = {"image-2"}
    assert decoded(images.dataset()).unreadable == (("image-2", "ValueError: image-2 is garbled"),)


def test_no_file_at_all_is_an_error(images):
    shutil.rmtree(images.folder)
    with pytest.raises(XbenchError, match="none of its 6 images is readable; cannot be read: No such file"):
        decoded(images.dataset())


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        (np.zeros((HEIGHT, WIDTH), np.uint8), r"returned uint8 \(4, 5\), not uint8 \(4, 5, 3\)"),
        (np.zeros((CHANNELS, HEIGHT, WIDTH), np.uint8), r"returned uint8 \(3, 4, 5\), not uint8 \(4, 5, 3\)"),
        (np.zeros((WIDTH, HEIGHT, CHANNELS), np.uint8), r"returned uint8 \(5, 4, 3\), not uint8 \(4, 5, 3\)"),
        (
            np.zeros((HEIGHT, WIDTH, CHANNELS), np.float32),
            r"returned float32 \(4, 5, 3\), not uint8 \(4, 5, 3\)",
        ),
    ],
)
def test_the_wrong_shape_or_type_is_an_error_that_leaves_no_cache(images, cache, image, complaint):
    dataset = replace(images.dataset(), read=lambda e: image if e.name == "image-3" else images.read(e))
    with pytest.raises(XbenchError, match=rf"image-3: read\(\) {complaint}"):
        decoded(dataset)
    assert list((cache / "images").iterdir()) == []
    assert decoded(images.dataset()).unreadable == ()


def test_a_dataset_without_examples_is_an_error(images):
    with pytest.raises(XbenchError, match="pictures"):
        decoded(replace(images.dataset(), examples=()))
