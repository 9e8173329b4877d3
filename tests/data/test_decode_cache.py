"""The decoded cache: made once, keyed by content, and mended when it is damaged."""

from __future__ import annotations

import errno
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

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
from xbench.data import decode as decode_module
from xbench.data import fingerprints
from xbench.data.decode import is_decoded
from xbench.errors import XbenchError


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


def test_what_takes_long_besides_decoding_is_told(images):
    def steps() -> list[str]:
        told = []
        decode_module.decode(
            images.dataset(), "pictures", "", False, ignore, on_step=lambda *step: told.append(step)
        )
        assert [step[1:] for step in told if step[0] == "hashing images"] == [(0, 6)]
        return [step for step, _, _ in told]

    def ignore(done: int, total: int) -> None:
        pass

    first = ["hashing images", "checking decoded images", "checking images", "saving decoded images"]
    assert steps() == [*first, "describing images"]
    assert steps() == ["hashing images", "checking decoded images", "describing images"]


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
    (stamps,) = (cache / "measurements/file hashes").iterdir()
    damage(stamps)
    assert decoded(images.dataset()).fingerprint == before.fingerprint
    assert sum(images.reads.values()) == 6


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
    shutil.rmtree(cache / "measurements")

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

    with pytest.raises(XbenchError, match="1 of 6 images changed while they were decoded: image-4"):
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


def test_what_decoding_makes_aside_is_cleared_away(images, cache):
    data = decoded(images.dataset())
    assert list((cache / "images").iterdir()) == [data.pixels_path.parent]
