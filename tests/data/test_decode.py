"""The decoded cache: right pixels, read once, keyed by content, and mended when it is damaged."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
import pytest

from xbench.components.specs import Dataset, Example
from xbench.data import decode as decode_module
from xbench.data import fingerprints
from xbench.data.decode import decode, is_decoded
from xbench.errors import XbenchError

HEIGHT, WIDTH, CHANNELS = 4, 5, 3
IMAGE_BYTES = HEIGHT * WIDTH * CHANNELS


def settle(path: Path) -> None:
    """Let a file look as if it had been written a minute ago."""
    a_minute_ago = time.time() - 60
    os.utime(path, (a_minute_ago, a_minute_ago))


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
            settle(folder / f"{index}.raw")
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


def replaced_by_a_copy(path: Path) -> None:
    """As `rsync -t` does it: under another name, with the time of what is copied, then renamed."""
    other = path.with_name("copied")
    other.write_bytes(bytes(IMAGE_BYTES))
    times = path.stat()
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(path)


def written_over(path: Path) -> None:
    times = path.stat()
    path.write_bytes(bytes(IMAGE_BYTES))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("change", [replaced_by_a_copy, written_over])
def test_changed_content_of_the_same_size_and_time_is_seen(images, change):
    before = decoded(images.dataset())
    assert is_decoded(images.dataset())
    change(images.folder / "2.raw")
    assert not is_decoded(images.dataset())
    after = decoded(images.dataset())
    assert after.fingerprint != before.fingerprint
    assert (pixels_of(after)[2] == 0).all()


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


def flip(folder: Path):
    """One bit of one pixel."""
    with (folder / "pixels.u8").open("r+b") as file:
        file.seek(3 * IMAGE_BYTES)
        byte = file.read(1)[0]
        file.seek(3 * IMAGE_BYTES)
        file.write(bytes([byte ^ 4]))
    later(folder / "pixels.u8")


def empty_pixels(folder: Path):
    (folder / "pixels.u8").write_bytes(b"")


def zeros(folder: Path):
    (folder / "pixels.u8").write_bytes(bytes(6 * IMAGE_BYTES))
    later(folder / "pixels.u8")


def folder_for_pixels(folder: Path):
    remove_pixels(folder)
    (folder / "pixels.u8").mkdir()


def folder_for_index(folder: Path):
    remove_index(folder)
    (folder / "index.json").mkdir()


def pipe_for_pixels(folder: Path):
    remove_pixels(folder)
    os.mkfifo(folder / "pixels.u8")


def pipe_for_index(folder: Path):
    remove_index(folder)
    os.mkfifo(folder / "index.json")


def link_to_nowhere(folder: Path):
    remove_pixels(folder)
    (folder / "pixels.u8").symlink_to("nowhere")


def name_another(folder: Path):
    """An image that could be decoded is said to be unreadable: the index is JSON still."""
    path = folder / "index.json"
    path.write_text(path.read_text().replace('"unreadable": {}', '"unreadable": {"image-1": "?"}'))


def file_for_all(folder: Path):
    shutil.rmtree(folder)
    folder.write_text("in the way")


def nothing_left(folder: Path):
    shutil.rmtree(folder)
    folder.mkdir()


def later(path: Path) -> None:
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 5_000_000_000))


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        lengthen,
        remove_index,
        remove_pixels,
        empty_index,
        flip,
        empty_pixels,
        zeros,
        folder_for_pixels,
        folder_for_index,
        pipe_for_pixels,
        pipe_for_index,
        link_to_nowhere,
        name_another,
        file_for_all,
        nothing_left,
    ],
)
def test_a_damaged_cache_is_made_again(images, damage):
    before = decoded(images.dataset())
    damage(before.pixels_path.parent)
    heard = []
    after = decoded(images.dataset(), on_progress=lambda *at: heard.append(at))
    assert heard == [(done, 6) for done in range(1, 7)]
    assert set(images.reads.values()) == {2}
    assert (after.fingerprint, after.pixels_path) == (before.fingerprint, before.pixels_path)
    assert after.pixels_path.stat().st_size == 6 * IMAGE_BYTES
    assert_pixels_are_those_of_the_files(after, images, {e.name for e in images.examples})


def test_another_time_of_the_same_pixels_is_looked_into_once(images, monkeypatch):
    looked = []
    checksums = decode_module.row_checksums
    monkeypatch.setattr(decode_module, "row_checksums", lambda *args: looked.append(args) or checksums(*args))
    before = decoded(images.dataset())
    decoded(images.dataset())
    assert looked == []
    later(before.pixels_path)
    for _ in range(2):
        assert decoded(images.dataset()).fingerprint == before.fingerprint
        assert len(looked) == 1
    assert set(images.reads.values()) == {1}


def test_a_right_cache_that_cannot_be_written_is_used(images, cache, monkeypatch):
    before = decoded(images.dataset())
    later(before.pixels_path)
    shutil.rmtree(cache / "stamps")

    def mkdir(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert decoded(images.dataset()).fingerprint == before.fingerprint
    assert set(images.reads.values()) == {1}


def test_an_image_that_changes_while_it_is_decoded_is_no_cache(images, cache):
    def read(example):
        if example.name == "image-0":
            images.rewrite(4, bytes(IMAGE_BYTES))
        return images.read(example)

    with pytest.raises(XbenchError, match="1 of 6 images were changed while they were decoded: image-4"):
        decoded(replace(images.dataset(), read=read))
    assert list((cache / "images").iterdir()) == []
    assert_pixels_are_those_of_the_files(decoded(images.dataset()), images, {e.name for e in images.examples})


@pytest.mark.parametrize("age_s", [0, 1, -3600])
def test_a_change_within_a_tick_of_the_clock_is_seen(images, age_s):
    """The file has the same size and the same time, which is about that of hashing, or in the future."""
    path = images.folder / "2.raw"
    when = time.time() - age_s
    os.utime(path, (when, when))
    before = decoded(images.dataset())
    stat = path.stat()
    path.write_bytes(bytes(IMAGE_BYTES))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = decoded(images.dataset())
    assert after.fingerprint != before.fingerprint
    assert (pixels_of(after)[2] == 0).all()


def test_files_that_have_settled_are_hashed_once(images, monkeypatch):
    hashed = []
    opened = fingerprints.open_regular
    monkeypatch.setattr(fingerprints, "open_regular", lambda path: hashed.append(path.name) or opened(path))
    now = time.time()
    os.utime(images.folder / "2.raw", (now, now))
    decoded(images.dataset())
    hashed.clear()
    decoded(images.dataset())
    assert hashed == ["2.raw"]


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


@pytest.mark.parametrize(
    "change", [{"positive": "NORMAL"}, {"classes": ("HEALTHY", "PNEUMONIA")}, {"classes": ("PNEUMONIA", "x")}]
)
def test_the_fingerprint_changes_with_the_classes_but_pixels_are_shared(images, change):
    before = decoded(images.dataset())
    after = decoded(replace(images.dataset(), **change))
    assert after.fingerprint != before.fingerprint
    assert after.pixels_path == before.pixels_path


def test_another_pillow_decodes_files_again_and_nothing_else(images, monkeypatch):
    read = images.dataset()
    made = replace(read, examples=tuple(replace(e, path=None, content="x") for e in images.examples))
    made = replace(made, read=lambda e: np.zeros((HEIGHT, WIDTH, CHANNELS), np.uint8))
    before = [decoded(read), decoded(made)]
    monkeypatch.setattr(PIL, "__version__", "0.0.1")
    after = [decoded(read), decoded(made)]
    assert after[1].pixels_path == before[1].pixels_path
    assert after[1].fingerprint == before[1].fingerprint
    assert after[0].pixels_path != before[0].pixels_path
    assert after[0].fingerprint != before[0].fingerprint
    assert np.array_equal(pixels_of(after[0]), pixels_of(before[0]))


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
