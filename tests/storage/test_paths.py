"""The cache folder, its free space, and errors of the disk."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

import pytest

from xbench.errors import XbenchError
from xbench.storage import paths
from xbench.storage.paths import cache_dir, cache_note, concerns, disk_errors, disk_hint, expand_user
from xbench.storage.staging import staging_folder


class TestDiskErrors:
    @pytest.mark.parametrize(
        ("number", "hint"),
        [
            (errno.ENOSPC, "free some space"),
            (errno.EDQUOT, "free some space"),
            (errno.EFBIG, "ulimit -f"),
            (errno.EROFS, "read-only"),
            (errno.EIO, "move the cache"),
        ],
    )
    def test_they_say_what_to_do(self, number, hint):
        with pytest.raises(XbenchError) as caught, disk_errors("it cannot be kept"):
            raise OSError(number, os.strerror(number))
        assert caught.value.message == f"it cannot be kept: {os.strerror(number)}"
        assert hint in caught.value.hint and "XBENCH_CACHE_DIR" in caught.value.hint

    def test_a_hint_ends_with_another_way_out(self):
        full, damaged = (OSError(number, "text") for number in (errno.ENOSPC, errno.EIO))
        assert disk_hint(full) == "free some space there"
        assert disk_hint(full, "wait") == "free some space there, or wait"
        assert (disk_hint(damaged), disk_hint(damaged, "wait")) == ("", "wait")

    def test_a_file_in_the_way_is_told(self, tmp_path):
        (tmp_path / "file").touch()
        for place in (tmp_path / "file/place", tmp_path / "file/deep/place"):
            with (
                pytest.raises(XbenchError, match="it cannot be kept: a file is where a folder is needed"),
                disk_errors("it cannot be kept"),
                staging_folder(place),
            ):
                pass

    def test_others_are_left_alone(self):
        with pytest.raises(ZeroDivisionError), disk_errors("it cannot be kept"):
            raise ZeroDivisionError


def test_too_little_space_is_told(tmp_path):
    with pytest.raises(XbenchError, match=r"this needs .* is free"):
        paths.require_space(tmp_path / "deep/down", 10**18, "this")


class TestCache:
    @pytest.fixture(autouse=True)
    def temporary(self, monkeypatch, tmp_path):
        """A folder for temporary files, and nothing that names another place."""
        for name in ("XBENCH_CACHE_DIR", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        return tmp_path / f"xbench-cache-{os.getuid()}"

    @pytest.fixture
    def homeless(self, monkeypatch):
        """As a user without an entry in the password file."""
        monkeypatch.delenv("HOME")
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)

    def test_is_the_users(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
        assert (cache_dir(), cache_note()) == (tmp_path / "caches/xbench", "")

    def test_is_where_the_variable_says(self, monkeypatch, homeless):
        monkeypatch.setenv("XBENCH_CACHE_DIR", "/here")
        assert (cache_dir(), cache_note()) == (Path("/here"), "")

    def test_is_among_temporary_files_without_a_home(self, homeless, temporary):
        assert cache_dir() == temporary
        assert "no home folder" in cache_note() and "XBENCH_CACHE_DIR" in cache_note()

    def test_is_among_temporary_files_where_the_usual_place_is_read_only(
        self, monkeypatch, tmp_path, temporary
    ):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) == temporary)
        assert cache_dir() == temporary
        assert "caches/xbench cannot be written to" in cache_note()

    def test_is_among_temporary_files_where_a_file_is_in_the_way(self, monkeypatch, tmp_path, temporary):
        (tmp_path / "home").write_text("not a folder")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home/caches"))
        assert cache_dir() == temporary
        assert "home/caches/xbench cannot be written to" in cache_note()

    def test_among_temporary_files_is_for_its_user_alone_whatever_the_umask(self, homeless, temporary):
        before = os.umask(0o002)
        try:
            assert cache_dir() == temporary
        finally:
            os.umask(before)
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o700
        assert cache_dir() == temporary  # again, now that it is there

    @pytest.mark.parametrize("make", ["for all", "for a group", "a link"])
    def test_is_not_where_others_could_change_it(self, homeless, temporary, tmp_path, make):
        if make == "a link":
            temporary.symlink_to(tmp_path)
        else:
            temporary.mkdir()
            temporary.chmod(0o777 if make == "for all" else 0o770)
        with pytest.raises(
            XbenchError, match=r"cannot use .* as the cache: another user could write"
        ) as caught:
            cache_dir()
        assert "XBENCH_CACHE_DIR" in caught.value.hint

    def test_is_not_where_its_user_cannot_write(self, homeless, temporary):
        temporary.mkdir(0o500)
        with pytest.raises(XbenchError, match=r"cannot use .* as the cache: you cannot write to it"):
            cache_dir()

    def test_needs_a_place(self, homeless, monkeypatch):
        def fail() -> str:
            raise FileNotFoundError(errno.ENOENT, "no usable temporary directory")

        monkeypatch.setattr(tempfile, "gettempdir", fail)
        with pytest.raises(XbenchError, match="no writable folder for the cache"):
            cache_dir()


class TestExpandUser:
    def test_a_home(self, monkeypatch):
        monkeypatch.setenv("HOME", "/home/me")
        assert expand_user("~/data", "--out") == Path("/home/me/data")
        assert expand_user("data/~", "--out") == Path("data/~")

    def test_of_nobody(self):
        with pytest.raises(
            XbenchError, match="--out '~no-such-user/x': there is no user 'no-such-user'"
        ) as caught:
            expand_user("~no-such-user/x", "--out")
        assert "./~no-such-user/x" in caught.value.hint

    def test_where_there_is_none(self, monkeypatch):
        def fail(path: Path) -> Path:
            raise RuntimeError

        monkeypatch.setattr(Path, "expanduser", fail)
        with pytest.raises(XbenchError, match="this user has no home folder"):
            expand_user("~/x", "--out")


class TestConcerns:
    @pytest.mark.parametrize(
        ("names", "concerned"),
        [
            (("results/suite/run/cells.jsonl",), True),
            (("elsewhere/file", None, "results/file"), True),
            (("results",), True),
            (("results-of-others/file",), False),
            ((), False),
        ],
    )
    def test_an_error_is_about_the_folder_of_its_files(self, names, concerned):
        error = OSError(errno.EIO, "it fails", *names)
        assert concerns(error, Path("results")) is concerned
