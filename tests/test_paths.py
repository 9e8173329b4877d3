"""What is made aside: whole in its place or not there at all, whoever else is at it and however it ends."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from xbench import paths
from xbench.errors import XbenchError
from xbench.paths import disk_errors, folder_aside, keep_json, kept_json, open_regular, put_in_place

HOLDS_ONE = """
import sys, time
from pathlib import Path
from xbench.paths import folder_aside
with folder_aside(Path(sys.argv[1])) as aside:
    (aside / "half").write_text("done")
    print(aside, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def place(tmp_path) -> Path:
    return tmp_path / "not yet" / "place"


@pytest.fixture
def holder(place):
    """Another process that has a folder aside for the same place, and that folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS_ONE, str(place)], stdout=subprocess.PIPE, text=True
    )
    folder = Path(process.stdout.readline().strip())
    yield process, folder
    process.kill()
    process.wait()
    process.stdout.close()


def kill(holder) -> Path:
    process, folder = holder
    process.send_signal(signal.SIGKILL)
    process.wait()
    return folder


def beside(place: Path) -> list[str]:
    return sorted(path.name for path in place.parent.iterdir())


def without_locks(monkeypatch) -> None:
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)


def always() -> bool:
    return True


def never() -> bool:
    return False


class TestAside:
    def test_it_is_empty_and_beside_the_place(self, place):
        with folder_aside(place) as aside:
            assert list(aside.iterdir()) == []
            assert aside.parent == place.parent
            assert aside.name.startswith(".")
        assert beside(place) == []

    def test_it_is_gone_after_an_error(self, place):
        with pytest.raises(ArithmeticError), folder_aside(place) as aside:
            (aside / "file").touch()
            raise ArithmeticError
        assert beside(place) == []

    def test_it_stays_while_another_process_has_it(self, place, holder):
        _, folder = holder
        with folder_aside(place) as mine:
            assert mine != folder
        assert beside(place) == [folder.name]
        assert (folder / "half").read_text() == "done"

    def test_what_a_killed_process_left_is_removed(self, place, holder):
        folder = kill(holder)
        assert (folder / "half").exists()
        with folder_aside(place) as mine:
            assert beside(place) == [mine.name]

    def test_so_is_what_it_left_for_another_place(self, place, holder):
        kill(holder)
        with folder_aside(place.with_name("other")):
            pass
        assert beside(place) == []

    def test_what_is_not_ours_stays(self, place):
        names = [".place.backup", ".place.aside.txt", "place.aside", ".place.01234567.aside"]
        place.parent.mkdir()
        for name in names[:3]:
            (place.parent / name).mkdir()
        (place.parent / names[3]).symlink_to(place.parent / "place.aside")
        with folder_aside(place):
            pass
        assert beside(place) == sorted(names)

    def test_alone(self, place, holder):
        with pytest.raises(BlockingIOError), folder_aside(place, alone=True):
            pass
        with folder_aside(place.with_name("pla"), alone=True):
            pass  # another place
        kill(holder)
        with folder_aside(place, alone=True):
            pass
        assert beside(place) == []

    def test_where_there_are_no_locks_nothing_is_swept(self, place, holder, monkeypatch):
        folder = kill(holder)
        without_locks(monkeypatch)
        with folder_aside(place) as mine:
            assert mine.is_dir()
        assert beside(place) == [folder.name]

    def test_where_it_cannot_be_made(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(FileExistsError), folder_aside(tmp_path / "file" / "place"):
            pass


class TestPutInPlace:
    def put(self, place: Path, stays=never, content: str = "new") -> None:
        with folder_aside(place) as aside:
            (aside / "deep").mkdir()
            (aside / "deep/file").write_text(content)
            put_in_place(aside, place, stays)

    def test_it_is_there_whole_and_nothing_else(self, place):
        self.put(place, lambda: pytest.fail("there is nothing that could stay"))
        assert (place / "deep/file").read_text() == "new"
        assert beside(place) == ["place"]

    def test_what_is_whole_stays(self, place):
        self.put(place, content="first")
        self.put(place, stays=always)
        assert (place / "deep/file").read_text() == "first"
        assert beside(place) == ["place"]

    @pytest.mark.parametrize("kind", ["folder", "file", "link to nowhere", "link"])
    def test_what_is_damaged_is_replaced(self, place, tmp_path, kind):
        place.parent.mkdir()
        (tmp_path / "target").mkdir()
        (tmp_path / "target/precious").touch()
        if kind == "folder":
            (place / "deep").mkdir(parents=True)
        elif kind == "file":
            place.write_text("damaged")
        else:
            place.symlink_to(tmp_path / ("nowhere" if kind == "link to nowhere" else "target"))
        self.put(place)
        assert (place / "deep/file").read_text() == "new"
        assert not place.is_symlink()
        assert beside(place) == ["place"]
        assert (tmp_path / "target/precious").exists()

    def test_a_failed_rename_leaves_what_was_there(self, place, monkeypatch):
        self.put(place, content="first")
        rename = Path.rename

        def fail_for_the_new_one(path: Path, target: Path):
            if path.exists() and (path / "deep/file").read_text() == "new":
                raise KeyboardInterrupt
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
        with pytest.raises(KeyboardInterrupt):
            self.put(place)
        assert (place / "deep/file").read_text() == "first"
        assert beside(place) == ["place"]

    def test_what_does_not_reach_the_disk_is_not_put_there(self, place, monkeypatch):
        def fsync(_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="No space left"):
            self.put(place)
        assert beside(place) == []

    def test_every_file_and_folder_reaches_the_disk_before_the_rename(self, place, monkeypatch):
        events = []
        fsync, rename = os.fsync, Path.rename

        def noted_fsync(descriptor):
            events.append(os.fstat(descriptor).st_ino)
            fsync(descriptor)

        def noted_rename(path, target):
            events.append("rename")
            return rename(path, target)

        monkeypatch.setattr(os, "fsync", noted_fsync)
        monkeypatch.setattr(Path, "rename", noted_rename)
        self.put(place)
        inodes = {path.stat().st_ino for path in (place, place / "deep", place / "deep/file")}
        assert set(events[: events.index("rename")]) == inodes
        assert events[-1] == place.parent.stat().st_ino

    def test_without_locks(self, place, monkeypatch):
        without_locks(monkeypatch)
        self.put(place)
        assert beside(place) == ["place"]


class TestJson:
    CONTENT = {"a": [1, 2.5, None, "é\n\udcff"], "b": {"c": True}}  # noqa: RUF012

    def test_it_is_as_it_was(self, place):
        keep_json(place, self.CONTENT)
        assert kept_json(place) == self.CONTENT
        keep_json(place, [1])
        assert kept_json(place) == [1]
        assert beside(place) == ["place"]

    def test_nothing_is_there(self, place):
        assert kept_json(place) is None

    def test_any_changed_or_missing_byte_is_noticed(self, place):
        keep_json(place, {"name": "a", "rows": [10, 200]})
        whole = place.read_bytes()
        start = whole.index(b'"content": ') + len(b'"content": ')
        for at in range(start, len(whole) - 1):
            for changed in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
                place.write_bytes(changed)
                found = kept_json(place)
                # What reads the same is the same: a space may be another kind of space.
                assert found in (None, {"name": "a", "rows": [10, 200]})

    @pytest.mark.parametrize(
        "content", [b"", b"{", b"[]", b"null", b"7", b"{}", b"\xff\xfe\x00", b"[" * 100_000, b"\0" * 100]
    )
    def test_what_is_none_is_nothing(self, place, content):
        place.parent.mkdir()
        place.write_bytes(content)
        assert kept_json(place) is None

    def test_what_cannot_be_written_leaves_the_old(self, place):
        keep_json(place, 1)
        with pytest.raises(TypeError):
            keep_json(place, object())
        assert kept_json(place) == 1
        assert beside(place) == ["place"]

    def test_a_folder_or_a_pipe_in_its_place_is_nothing(self, place):
        place.mkdir(parents=True)
        assert kept_json(place) is None
        place.rmdir()
        os.mkfifo(place)
        assert kept_json(place) is None

    def test_it_is_json(self, place):
        keep_json(place, self.CONTENT)
        assert json.loads(place.read_text())["content"] == self.CONTENT


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
