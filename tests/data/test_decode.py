"""The decoded cache: right pixels, read once, keyed by content, and mended when it is damaged."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xbench.components.specs import Dataset, Example
from xbench.data.decode import decode
from xbench.errors import XbenchError

HEIGHT, WIDTH, CHANNELS = 4, 5, 3
IMAGE_BYTES = HEIGHT * WIDTH * CHANNELS


class Images:
    """A dataset of raw files in a folder, which counts what it reads. `broken` names cannot be decoded."""

    def __init__(self, folder: Path, count: int = 6):
        self.folder = folder
        self.reads: Counter[str] = Counter()
        self.broken: set[str] = set()
        rng = np.random.default_rng(7)
        folder.mkdir(parents=True)
        for index in range(count):
            (folder / f"{index}.raw").write_bytes(rng.bytes(IMAGE_BYTES))
        self.examples = tuple(
            Example(
                name=f"image-{index}",
                label=index % 2,
                split=split,
                group=f"{split}-{index // 2}",
                path=folder / f"{index}.raw",
            )
            for index in range(count)
            for split in ["test" if index % 3 == 2 else "train"]
        )

    def read(self, example: Example) -> np.ndarray:
        self.reads[example.name] += 1
        if example.name in self.broken:
            raise ValueError(f"{example.name} is garbled")
        return np.frombuffer(example.path.read_bytes(), np.uint8).reshape(HEIGHT, WIDTH, CHANNELS)

    def dataset(self, *examples: Example) -> Dataset:
        return Dataset(
            classes=("NORMAL", "PNEUMONIA"),
            positive="PNEUMONIA",
            shape=(CHANNELS, HEIGHT, WIDTH),
            examples=examples or self.examples,
            read=self.read,
            notes=("a note",),
        )

    def rewrite(self, index: int, content: bytes, keep_time: bool = False) -> None:
        path = self.folder / f"{index}.raw"
        stat = path.stat()
        path.write_bytes(content)
        # A later second, whatever the resolution of the file system's clock.
        later = 0 if keep_time else 5_000_000_000
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + later))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def images(tmp_path):
    return Images(tmp_path / "files")


def decoded(dataset, strict=False, on_progress=lambda done, total: None):
    return decode(dataset, "pictures", "made up", strict, on_progress)


def pixels_of(data) -> np.ndarray:
    with data.reader(len(data.rows)) as reader:
        return reader.read(data.rows).copy()


def assert_pixels_are_those_of_the_files(data, images, names):
    expected = [images.read(e) for e in sorted(images.examples, key=lambda e: e.name) if e.name in names]
    assert np.array_equal(pixels_of(data), expected)


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


def test_the_second_time_nothing_is_read(images):
    calls = []
    first = decoded(images.dataset(), on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 6) for done in range(1, 7)]
    assert set(images.reads.values()) == {1}
    second = decoded(images.dataset(), on_progress=lambda done, total: calls.append((done, total)))
    assert len(calls) == 6
    assert sum(images.reads.values()) == 6
    assert second.pixels_path == first.pixels_path
    assert second.fingerprint == first.fingerprint


def test_the_cache_is_where_the_variable_says(images, cache):
    assert decoded(images.dataset()).pixels_path.is_relative_to(cache)


def test_changed_content_is_decoded_again(images):
    before = decoded(images.dataset())
    images.rewrite(2, bytes(IMAGE_BYTES))
    after = decoded(images.dataset())
    assert images.reads["image-2"] == 2
    assert after.fingerprint != before.fingerprint
    assert (pixels_of(after)[2] == 0).all()
    assert pixels_of(before)[2].any()  # the run that began before keeps its pixels


def test_a_changed_size_is_seen_even_if_the_time_is_not_changed(images):
    before = decoded(images.dataset())
    images.rewrite(2, bytes(IMAGE_BYTES + 1), keep_time=True)
    dataset = replace(images.dataset(), read=lambda e: np.zeros((HEIGHT, WIDTH, CHANNELS), np.uint8))
    assert decoded(dataset).fingerprint != before.fingerprint


def test_a_touched_file_is_not_decoded_again(images):
    before = decoded(images.dataset())
    images.rewrite(2, (images.folder / "2.raw").read_bytes())
    after = decoded(images.dataset())
    assert sum(images.reads.values()) == 6
    assert (after.fingerprint, after.pixels_path) == (before.fingerprint, before.pixels_path)


def test_content_that_comes_back_is_still_cached(images):
    old = (images.folder / "2.raw").read_bytes()
    before = decoded(images.dataset())
    images.rewrite(2, bytes(IMAGE_BYTES))
    decoded(images.dataset())
    images.rewrite(2, old)
    reads = sum(images.reads.values())
    assert decoded(images.dataset()).fingerprint == before.fingerprint
    assert sum(images.reads.values()) == reads


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text("{")])
def test_remembered_hashes_are_only_a_memory(images, cache, damage):
    before = decoded(images.dataset())
    (stamps,) = (cache / "stamps").iterdir()
    damage(stamps)
    assert decoded(images.dataset()).fingerprint == before.fingerprint
    assert sum(images.reads.values()) == 6


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


def test_no_file_at_all_is_an_error(images):
    shutil.rmtree(images.folder)
    with pytest.raises(XbenchError, match="none of its 6 images is readable; cannot be read: No such file"):
        decoded(images.dataset())


def truncate(folder: Path):
    os.truncate(folder / "pixels.u8", 6 * IMAGE_BYTES - 1)


def lengthen(folder: Path):
    os.truncate(folder / "pixels.u8", 6 * IMAGE_BYTES + 1)


def remove_index(folder: Path):
    (folder / "index.json").unlink()


def remove_pixels(folder: Path):
    (folder / "pixels.u8").unlink()


def empty_index(folder: Path):
    (folder / "index.json").write_text("")


def flip_a_bit(folder: Path):
    content = bytearray((folder / "pixels.u8").read_bytes())
    content[IMAGE_BYTES] ^= 1
    (folder / "pixels.u8").write_bytes(content)


def test_a_cache_that_was_copied_is_not_made_again(images):
    before = decoded(images.dataset())
    os.utime(before.pixels_path, ns=(0, 1))
    decoded(images.dataset())
    assert set(images.reads.values()) == {1}


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        lengthen,
        remove_index,
        remove_pixels,
        empty_index,
        flip_a_bit,
    ],
)
def test_a_damaged_cache_is_made_again(images, damage):
    before = decoded(images.dataset())
    damage(before.pixels_path.parent)
    after = decoded(images.dataset())
    assert set(images.reads.values()) == {2}
    assert (after.fingerprint, after.pixels_path) == (before.fingerprint, before.pixels_path)
    assert after.pixels_path.stat().st_size == 6 * IMAGE_BYTES
    assert_pixels_are_those_of_the_files(after, images, {e.name for e in images.examples})


def test_the_cache_of_a_faster_run_is_kept(images):
    faster = []

    def on_progress(done, total):
        if not faster:
            faster.append(decoded(images.dataset()))
            faster.append(faster[0].pixels_path.stat().st_ino)

    slower = decoded(images.dataset(), on_progress=on_progress)
    assert slower.pixels_path == faster[0].pixels_path
    assert slower.pixels_path.stat().st_ino == faster[1]


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        (np.zeros((HEIGHT, WIDTH), np.uint8), r"gave uint8 \(4, 5\), not uint8 \(4, 5, 3\)"),
        (np.zeros((CHANNELS, HEIGHT, WIDTH), np.uint8), r"gave uint8 \(3, 4, 5\), not uint8 \(4, 5, 3\)"),
        (np.zeros((WIDTH, HEIGHT, CHANNELS), np.uint8), r"gave uint8 \(5, 4, 3\), not uint8 \(4, 5, 3\)"),
        (np.zeros((HEIGHT, WIDTH, CHANNELS), np.float32), r"gave float32 \(4, 5, 3\), not uint8 \(4, 5, 3\)"),
    ],
)
def test_the_wrong_shape_or_type_is_an_error_that_leaves_no_cache(images, cache, image, complaint):
    dataset = replace(images.dataset(), read=lambda e: image if e.name == "image-3" else images.read(e))
    with pytest.raises(XbenchError, match=rf"image-3: read\(\) {complaint}"):
        decoded(dataset)
    assert list((cache / "images").iterdir()) == []
    assert decoded(images.dataset()).unreadable == ()


def test_what_decoding_makes_aside_is_cleared_away(images, cache):
    data = decoded(images.dataset())
    assert list((cache / "images").iterdir()) == [data.pixels_path.parent]


@pytest.mark.parametrize("change", [{"label": 1}, {"split": "test", "group": ""}, {"group": "train-9"}])
def test_the_fingerprint_changes_with_what_training_sees_but_pixels_are_shared(images, change):
    before = decoded(images.dataset())
    first, *others = images.examples
    after = decoded(images.dataset(replace(first, **change), *others))
    assert after.fingerprint != before.fingerprint
    assert after.pixels_path == before.pixels_path
    assert sum(images.reads.values()) == 6


def test_the_fingerprint_changes_with_the_set_and_with_names(images):
    first, *others = images.examples
    whole = decoded(images.dataset()).fingerprint
    without = decoded(images.dataset(*others)).fingerprint
    renamed = decoded(images.dataset(replace(first, name="image-00"), *others)).fingerprint
    assert len({whole, without, renamed}) == 3


def test_the_fingerprint_changes_with_the_shape(images):
    flat = replace(
        images.dataset(), shape=(CHANNELS, 1, HEIGHT * WIDTH), read=lambda e: images.read(e).reshape(1, -1, 3)
    )
    assert decoded(flat).fingerprint != decoded(images.dataset()).fingerprint
    assert decoded(flat).pixels_path != decoded(images.dataset()).pixels_path


def test_the_fingerprint_does_not_change_with_the_place(images, tmp_path):
    before = decoded(images.dataset())
    shutil.copytree(images.folder, tmp_path / "moved")
    elsewhere = [replace(e, path=tmp_path / "moved" / e.path.name) for e in images.examples]
    after = decoded(images.dataset(*elsewhere))
    assert (after.fingerprint, after.pixels_path) == (before.fingerprint, before.pixels_path)
    assert sum(images.reads.values()) == 6


def test_images_without_files_are_known_by_their_content(images, tmp_path):
    def made_up(version):
        examples = [Example(f"{i}", i % 2, "train", content=f"{version} {i}") for i in range(3)]
        return images.dataset(*examples)

    images.read = lambda example: np.full((HEIGHT, WIDTH, CHANNELS), len(example.content), np.uint8)
    first = decoded(made_up("v1"))
    assert decoded(made_up("v1")).fingerprint == first.fingerprint
    second = decoded(made_up("version 2"))
    assert second.fingerprint != first.fingerprint
    assert (pixels_of(first) == len("v1 0")).all()
    assert (pixels_of(second) == len("version 2 0")).all()


def test_settings_that_change_the_pixels_of_a_file_are_not_mixed_up(images):
    def inverted(example):
        return 255 - images.read(example)

    plain = decoded(images.dataset())
    other = replace(images.dataset(*(replace(e, content="inverted") for e in images.examples)), read=inverted)
    assert np.array_equal(pixels_of(decoded(other)), 255 - pixels_of(plain))


def test_a_dataset_without_examples_is_an_error(images):
    with pytest.raises(XbenchError, match="pictures"):
        decoded(replace(images.dataset(), examples=()))
