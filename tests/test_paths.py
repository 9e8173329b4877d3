"""Room in the cache, and what is told of a disk that does not take what it should."""

from __future__ import annotations

import errno
import os

import pytest

from xbench import paths
from xbench.errors import XbenchError
from xbench.files import folder_aside
from xbench.paths import disk_errors


class TestDiskErrors:
    @pytest.mark.parametrize(
        ("number", "hint"),
        [
            (errno.ENOSPC, "make space"),
            (errno.EDQUOT, "make space"),
            (errno.EFBIG, "ulimit -f"),
            (errno.EROFS, "XBENCH_CACHE_DIR moves the cache"),
        ],
    )
    def test_they_say_what_to_do(self, number, hint):
        with pytest.raises(XbenchError) as caught, disk_errors("it cannot be kept"):
            raise OSError(number, os.strerror(number))
        assert caught.value.message == f"it cannot be kept: {os.strerror(number)}"
        assert hint in caught.value.hint and "XBENCH_CACHE_DIR" in caught.value.hint

    def test_a_file_in_the_way_is_told(self, tmp_path):
        (tmp_path / "file").touch()
        for place in (tmp_path / "file/place", tmp_path / "file/deep/place"):
            with (
                pytest.raises(XbenchError, match="it cannot be kept: a file is where a folder is needed"),
                disk_errors("it cannot be kept"),
                folder_aside(place),
            ):
                pass

    def test_others_are_left_alone(self):
        with pytest.raises(ZeroDivisionError), disk_errors("it cannot be kept"):
            raise ZeroDivisionError


def test_too_little_space_is_told(tmp_path):
    with pytest.raises(XbenchError, match=r"this needs .* are free"):
        paths.require_space(tmp_path / "deep/down", 10**18, "this")
