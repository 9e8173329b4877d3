"""Files are whole or not there, and lines are whole or not there."""

from __future__ import annotations

import errno
import os
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbench.records import files
from xbench.records.files import append_line, put_whole, write_whole


@contextmanager
def largest_file(size_bytes: int):
    """No file of this process can grow beyond that, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "lines"


class TestAppendLine:
    def test_to_a_file_that_is_not_there(self, path):
        append_line(path, b"one")
        append_line(path, b"two")
        assert path.read_bytes() == b"one\ntwo\n"

    @pytest.mark.parametrize("size", [1, 65_535, 65_536, 65_537, 200_000])
    @pytest.mark.parametrize("before", [b"", b"one\n", b"one\n\ntwo\n"])
    def test_what_a_crash_left_of_a_line_is_cut_off(self, path, before, size):
        path.write_bytes(before + b"x" * size)
        append_line(path, b"new")
        assert path.read_bytes() == before + b"new\n"

    @given(before=st.binary(max_size=40), line=st.binary(max_size=40).filter(lambda line: b"\n" not in line))
    def test_whole_lines_stay_whatever_was_there(self, tmp_path_factory, before, line):
        path = tmp_path_factory.mktemp("lines") / "lines"
        path.write_bytes(before)
        append_line(path, line)
        assert path.read_bytes() == before[: before.rfind(b"\n") + 1] + line + b"\n"

    @pytest.mark.parametrize("room", [0, 1, 500, 1000])
    def test_a_disk_that_is_full_leaves_nothing_of_it(self, path, room):
        append_line(path, b"one")
        with largest_file(4 + room), pytest.raises(OSError) as caught:
            append_line(path, b"x" * 1000)
        assert caught.value.errno == errno.EFBIG
        assert path.read_bytes() == b"one\n"
        append_line(path, b"two")
        assert path.read_bytes() == b"one\ntwo\n"

    def test_a_line_for_which_there_is_just_room(self, path):
        with largest_file(1001):
            append_line(path, b"x" * 1000)
        assert path.stat().st_size == 1001

    def test_a_line_that_cannot_be_seen_to_the_disk(self, path, monkeypatch):
        append_line(path, b"one")

        def broken(descriptor):
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output"):
            patch.setattr(files.os, "fsync", broken)
            append_line(path, b"two")
        assert path.read_bytes() == b"one\n"

    def test_a_write_that_takes_a_part_at_a_time(self, path, monkeypatch):
        real = os.pwrite
        monkeypatch.setattr(files.os, "pwrite", lambda to, content, place: real(to, content[:3], place))
        append_line(path, b"0123456789")
        append_line(path, b"")
        assert path.read_bytes() == b"0123456789\n\n"

    def test_no_descriptor_is_left(self, path):
        before = len(os.listdir("/proc/self/fd"))
        append_line(path, b"one")
        with largest_file(2), pytest.raises(OSError):
            append_line(path, b"two")
        assert len(os.listdir("/proc/self/fd")) == before

    def test_where_nothing_can_be_written(self, tmp_path):
        with pytest.raises(IsADirectoryError):
            append_line(tmp_path, b"one")


class TestWriteWhole:
    def test_in_place_of_what_was_there(self, path):
        for content in (b"a" * 1000, b"b", b""):
            write_whole(path, content)
            assert path.read_bytes() == content
        assert list(path.parent.iterdir()) == [path]

    def test_a_disk_that_is_full_leaves_what_was_there(self, path):
        write_whole(path, b"before")
        with largest_file(100), pytest.raises(OSError):
            write_whole(path, b"x" * 1000)
        assert path.read_bytes() == b"before"
        write_whole(path, b"after")
        assert list(path.parent.iterdir()) == [path]

    def test_is_on_the_disk_before_it_has_its_name(self, path, monkeypatch):
        done = []
        real_sync, real_replace = os.fsync, Path.replace
        monkeypatch.setattr(
            files.os, "fsync", lambda to: (done.append(os.readlink(f"/proc/self/fd/{to}")), real_sync(to))
        )
        monkeypatch.setattr(
            files.Path, "replace", lambda aside, to: (done.append("renamed"), real_replace(aside, to))[1]
        )
        write_whole(path, b"content")
        assert [Path(each).name for each in done] == [".lines.partial", "renamed", path.parent.name]


def test_a_folder_is_put_whole(tmp_path):
    (tmp_path / ".aside").mkdir()
    (tmp_path / ".aside" / "file").write_text("content")
    put_whole(tmp_path / ".aside", tmp_path / "place")
    assert [path.name for path in tmp_path.iterdir()] == ["place"]
    assert (tmp_path / "place" / "file").read_text() == "content"
