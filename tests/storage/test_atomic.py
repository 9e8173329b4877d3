"""Files are whole or not there, lines are whole or not there, and what is no file is not waited for."""

from __future__ import annotations

import errno
import json
import os
import resource
import socket
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbench.storage import atomic
from xbench.storage.atomic import (
    append_line,
    atomic_replace,
    atomic_write,
    open_regular,
    read_json,
    read_regular,
    sync_file,
    sync_folder,
    write_json,
)


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
            patch.setattr(atomic.os, "fsync", broken)
            append_line(path, b"two")
        assert path.read_bytes() == b"one\n"

    def test_a_write_that_takes_a_part_at_a_time(self, path, monkeypatch):
        real = os.pwrite
        monkeypatch.setattr(atomic.os, "pwrite", lambda to, content, place: real(to, content[:3], place))
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


class TestAtomicWrite:
    def test_in_place_of_what_was_there(self, path):
        for content in (b"a" * 1000, b"b", b""):
            atomic_write(path, content)
            assert path.read_bytes() == content
        assert list(path.parent.iterdir()) == [path]

    def test_a_disk_that_is_full_leaves_what_was_there(self, path):
        atomic_write(path, b"before")
        with largest_file(100), pytest.raises(OSError):
            atomic_write(path, b"x" * 1000)
        assert path.read_bytes() == b"before"
        atomic_write(path, b"after")
        assert list(path.parent.iterdir()) == [path]

    def test_is_on_the_disk_before_it_has_its_name(self, path, monkeypatch):
        done = []
        real_sync, real_replace = os.fsync, Path.replace
        monkeypatch.setattr(
            atomic.os, "fsync", lambda to: (done.append(os.readlink(f"/proc/self/fd/{to}")), real_sync(to))
        )
        monkeypatch.setattr(
            atomic.Path, "replace", lambda aside, to: (done.append("renamed"), real_replace(aside, to))[1]
        )
        atomic_write(path, b"content")
        assert [Path(each).name for each in done] == [".lines.partial", "renamed", path.parent.name]


def test_a_folder_is_atomic_replace(tmp_path):
    (tmp_path / ".aside").mkdir()
    (tmp_path / ".aside" / "file").write_text("content")
    atomic_replace(tmp_path / ".aside", tmp_path / "place")
    assert [path.name for path in tmp_path.iterdir()] == ["place"]
    assert (tmp_path / "place" / "file").read_text() == "content"


def refuse_to_sync(monkeypatch, number: int) -> None:
    def fsync(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic.os, "fsync", fsync)


class TestWhereFoldersCannotBeSynced:
    """As on some file systems, which answer with EINVAL."""

    @pytest.fixture(autouse=True)
    def refused(self, monkeypatch):
        real = os.fsync

        def fsync(descriptor):
            if os.path.isdir(f"/proc/self/fd/{descriptor}"):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            real(descriptor)

        monkeypatch.setattr(atomic.os, "fsync", fsync)

    def test_lines_and_files_are_written(self, path):
        append_line(path, b"one")
        assert path.read_bytes() == b"one\n"
        atomic_write(path, b"whole")
        assert path.read_bytes() == b"whole"


def test_a_folder_that_fails_is_told(tmp_path, monkeypatch):
    refuse_to_sync(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        sync_folder(tmp_path)


def test_a_file_that_cannot_be_synced_is_told(path, monkeypatch):
    path.touch()
    refuse_to_sync(monkeypatch, errno.EINVAL)
    with pytest.raises(OSError, match="Invalid argument"):
        sync_file(path)


class TestJson:
    CONTENT = {"a": [1, 2.5, None, "é\n\udcff"], "b": {"c": True}}  # noqa: RUF012

    def test_it_is_as_it_was(self, path):
        write_json(path, self.CONTENT)
        assert read_json(path) == self.CONTENT
        write_json(path, [1])
        assert read_json(path) == [1]
        assert list(path.parent.iterdir()) == [path]

    def test_nothing_is_there(self, path):
        assert read_json(path) is None

    def test_any_changed_or_missing_byte_is_noticed(self, path):
        write_json(path, {"name": "a", "rows": [10, 200]})
        whole = path.read_bytes()
        start = whole.index(b'"content": ') + len(b'"content": ')
        for at in range(start, len(whole) - 1):
            for changed in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
                path.write_bytes(changed)
                found = read_json(path)
                # What reads the same is the same: a space may be another kind of space.
                assert found in (None, {"name": "a", "rows": [10, 200]})

    @pytest.mark.parametrize(
        "content", [b"", b"{", b"[]", b"null", b"7", b"{}", b"\xff\xfe\x00", b"[" * 100_000, b"\0" * 100]
    )
    def test_a_damaged_file_is_nothing(self, path, content):
        path.write_bytes(content)
        assert read_json(path) is None

    def test_what_cannot_be_written_leaves_the_old(self, path):
        write_json(path, 1)
        with pytest.raises(TypeError):
            write_json(path, object())
        assert read_json(path) == 1
        assert list(path.parent.iterdir()) == [path]

    def test_a_folder_or_a_pipe_in_its_place_is_nothing(self, path):
        path.mkdir()
        assert read_json(path) is None
        path.rmdir()
        os.mkfifo(path)
        assert read_json(path) is None

    def test_it_is_json(self, path):
        write_json(path, self.CONTENT)
        assert json.loads(path.read_text())["content"] == self.CONTENT


class TestOpenRegular:
    def test_a_file(self, tmp_path):
        (tmp_path / "file").write_bytes(b"content")
        with open_regular(tmp_path / "file") as file:
            assert file.read() == b"content"

    def test_anything_else_is_refused_at_once(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)  # the name of a socket must be short
        os.mkfifo("pipe")
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("socket")
        os.symlink("/dev/zero", "device")
        os.mkdir("folder")
        os.symlink("nowhere", "link")
        os.symlink("loop", "loop")
        for name in ("pipe", "socket", "device", "folder", "link", "loop"):
            with pytest.raises(OSError):
                open_regular(Path(name))


class TestReadRegular:
    def test_all_of_it(self, path):
        path.write_bytes(b"0123456789")
        assert read_regular(path) == read_regular(path, 10) == b"0123456789"

    def test_what_is_too_large_is_refused(self, path):
        path.touch()
        os.truncate(path, 1 << 40)  # without taking room
        with pytest.raises(OSError, match="larger than 1,000 bytes") as caught:
            read_regular(path, 1000)
        assert caught.value.errno == errno.EFBIG

    def test_a_pipe_is_refused_at_once(self, path):
        os.mkfifo(path)
        with pytest.raises(OSError, match="not a regular file"):
            read_regular(path)


def test_the_names_of_new_folders_reach_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(atomic, "sync_folder", synced.append)
    for _ in range(2):
        atomic.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    assert synced == [tmp_path, tmp_path / "a"]
