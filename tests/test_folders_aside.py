"""What is made aside: whole in its place or not there at all, whoever else is at it and however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from xbench.files import folder_aside, put_in_place

HOLDS_ONE = """
import sys, time
from pathlib import Path
from xbench.files import folder_aside
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


DIES_BETWEEN = """
import os, signal, sys
from pathlib import Path
from xbench.files import folder_aside, put_in_place
place, rename, renamed = Path(sys.argv[1]), Path.rename, []

def rename_or_die(path, target):
    if len(renamed) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    renamed.append(path)
    return rename(path, target)

Path.rename = rename_or_die
with folder_aside(place) as aside:
    (aside / "file").write_text("new")
    put_in_place(aside, place, lambda: False)
"""


def die_in_place_of_rename(number: int, place: Path) -> None:
    """A process is killed when it was to do that one of the renames of `put_in_place`, from 0."""
    process = subprocess.run([sys.executable, "-c", DIES_BETWEEN, str(place), str(number)])
    assert process.returncode == -signal.SIGKILL


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

    def test_where_there_are_no_locks_a_dead_process_is_in_nobodys_way(self, place, holder, monkeypatch):
        folder = kill(holder)
        without_locks(monkeypatch)
        with folder_aside(place, alone=True) as mine:
            assert beside(place) == sorted([folder.name, mine.name])

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

    @pytest.mark.parametrize("opener", ["place", "other"])
    @pytest.mark.parametrize("kind", ["folder", "file", "link"])
    def test_a_process_killed_between_the_renames_loses_nothing(self, place, tmp_path, kind, opener):
        (tmp_path / "old").mkdir()
        (tmp_path / "old/file").write_text("old")
        place.parent.mkdir()
        if kind == "folder":
            (tmp_path / "old").rename(place)
        elif kind == "file":
            (tmp_path / "old/file").rename(place)
        else:
            place.symlink_to(tmp_path / "old")
        die_in_place_of_rename(1, place)
        assert not os.path.lexists(place)
        with folder_aside(place.with_name(opener)):
            pass
        assert beside(place) == ["place"]
        assert (place if kind == "file" else place / "file").read_text() == "old"
        assert place.is_symlink() == (kind == "link")

    @pytest.mark.parametrize(("number", "left"), [(0, "old"), (2, "new")])
    def test_nor_does_one_that_is_killed_before_or_after(self, place, number, left):
        place.mkdir(parents=True)
        (place / "file").write_text("old")
        die_in_place_of_rename(number, place)
        with folder_aside(place):
            pass
        assert beside(place) == ["place"]
        assert (place / "file").read_text() == left

    def test_what_only_looks_replaced_stays(self, place):
        names = [".place.older", ".place.0123456.older", "place.01234567.older", ".place.0123456g.older"]
        place.parent.mkdir()
        for name in names:
            (place.parent / name).mkdir()
        with folder_aside(place):
            pass
        assert beside(place) == sorted(names)
