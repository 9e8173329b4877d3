"""What is staged appears in its place whole or not at all, whoever else is at it and however it ends."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from xbench.storage import locks, staging
from xbench.storage.locks import LockHeld, hold
from xbench.storage.staging import discard, remove_stale, replace_folder, scratch_folder, staging_folder

HOLDS_ONE = """
import sys, time
from pathlib import Path
from xbench.storage.staging import staging_folder
with staging_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("done")
    print(folder, flush=True)
    time.sleep(60)
"""

# Dies when it is to do the rename of that number.
REPLACES = """
import os, signal, sys
from pathlib import Path
from xbench.storage.staging import replace_folder, staging_folder
place, rename, renamed = Path(sys.argv[1]), Path.rename, []

def rename_or_die(path, target):
    if len(renamed) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    renamed.append(path)
    return rename(path, target)

Path.rename = rename_or_die
with staging_folder(place) as folder:
    (folder / "file").write_text("new")
    replace_folder(folder, place)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def place(tmp_path) -> Path:
    return tmp_path / "not yet" / "place"


@pytest.fixture
def holder(place):
    """Another process that has a staging folder for the same place, and that folder."""
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


class TestStagingFolder:
    def test_is_empty_and_on_the_file_system_of_its_place(self, place):
        with staging_folder(place) as folder:
            assert list(folder.iterdir()) == []
            assert folder.parent.parent == place.parent
            assert all(name.startswith(".") for name in beside(place))
        assert beside(place) == []

    def test_is_gone_after_an_error(self, place):
        with pytest.raises(ArithmeticError), staging_folder(place) as folder:
            (folder / "file").touch()
            raise ArithmeticError
        assert beside(place) == []

    def test_stays_while_another_process_has_it(self, place, holder):
        _, folder = holder
        with staging_folder(place) as mine:
            assert mine != folder
        assert beside(place) == [folder.parent.name]
        assert (folder / "half").read_text() == "done"

    def test_what_a_killed_process_left_is_removed(self, place, holder):
        folder = kill(holder)
        assert (folder / "half").exists()
        with staging_folder(place) as mine:
            assert beside(place) == [mine.parent.name]

    def test_so_is_what_it_left_for_another_place(self, place, holder):
        kill(holder)
        with staging_folder(place.with_name("other")):
            pass
        assert beside(place) == []

    def test_one_that_another_process_takes_for_a_stale_one_is_made_anew(self, place, monkeypatch):
        taken = []

        def hold_or_lose(path):
            if not taken:
                taken.append(path)
                raise LockHeld(path, "")
            return hold(path)

        monkeypatch.setattr(staging, "hold", hold_or_lose)
        with staging_folder(place) as folder:
            assert folder.is_dir()
            assert folder.parent != taken[0].parent
        assert beside(place) == []

    def test_one_that_another_process_removes_is_made_anew(self, place, monkeypatch):
        acquire, removed = locks._acquire, []

        def acquire_too_late(path, blocking):
            lock = acquire(path, blocking)
            if not removed:
                removed.append(path.parent)
                shutil.rmtree(path.parent)
            return lock

        monkeypatch.setattr(locks, "_acquire", acquire_too_late)
        with staging_folder(place) as folder:
            assert folder.is_dir()
            assert folder.parent != removed[0]
        assert beside(place) == []

    def test_what_is_not_ours_stays(self, place):
        names = [".place.backup", ".place.aside.txt", "place.aside", ".place.01234567.aside", ".file.aside"]
        place.parent.mkdir()
        for name in names[:3]:
            (place.parent / name).mkdir()
        (place.parent / names[3]).symlink_to(place.parent / "place.aside")
        (place.parent / names[4]).touch()
        remove_stale(place.parent)
        assert beside(place) == sorted(names)

    def test_where_it_cannot_be_made(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(FileExistsError), staging_folder(tmp_path / "file" / "place"):
            pass


class TestReplaceFolder:
    def replace(self, place: Path, content: str = "new") -> None:
        with staging_folder(place) as folder:
            (folder / "deep").mkdir()
            (folder / "deep/file").write_text(content)
            replace_folder(folder, place)

    def test_the_new_one_is_there_whole_and_nothing_else(self, place):
        self.replace(place)
        assert (place / "deep/file").read_text() == "new"
        assert beside(place) == ["place"]

    @pytest.mark.parametrize("kind", ["folder", "file", "link to nowhere", "link"])
    def test_what_was_there_is_removed(self, place, tmp_path, kind):
        place.parent.mkdir()
        (tmp_path / "target").mkdir()
        (tmp_path / "target/precious").touch()
        if kind == "folder":
            (place / "deep/down").mkdir(parents=True)
        elif kind == "file":
            place.write_text("damaged")
        else:
            place.symlink_to(tmp_path / ("nowhere" if kind == "link to nowhere" else "target"))
        self.replace(place)
        assert (place / "deep/file").read_text() == "new"
        assert not place.is_symlink()
        assert beside(place) == ["place"]
        assert (tmp_path / "target/precious").exists()

    def test_what_does_not_reach_the_disk_replaces_nothing(self, place, monkeypatch):
        self.replace(place, content="first")

        def fsync(_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="No space left"):
            self.replace(place)
        assert (place / "deep/file").read_text() == "first"
        assert beside(place) == ["place"]

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
        self.replace(place)
        inodes = {path.stat().st_ino for path in (place, place / "deep", place / "deep/file")}
        assert set(events[: events.index("rename")]) == inodes
        assert events[-1] == place.parent.stat().st_ino

    @pytest.mark.parametrize(("number", "left"), [(0, ["old"]), (1, []), (2, ["new"])])
    def test_a_killed_process_leaves_one_whole_or_none(self, place, number, left):
        place.mkdir(parents=True)
        (place / "file").write_text("old")
        process = subprocess.run([sys.executable, "-c", REPLACES, str(place), str(number)])
        assert process.returncode == -signal.SIGKILL
        remove_stale(place.parent)
        assert [path.read_text() for path in place.glob("*")] == left
        assert beside(place) == ["place"] * len(left)


def test_discarding_leaves_nothing(place):
    (place / "deep/down").mkdir(parents=True)
    for _ in range(2):
        discard(place)
        assert beside(place) == []


def test_a_scratch_folder_is_gone_afterwards(monkeypatch, tmp_path):
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path))
    left = tmp_path / "scratch" / ".trial.0123abcd.aside"
    left.mkdir(parents=True)  # as by a process that was killed: nobody holds it
    with scratch_folder() as folder:
        (folder / "file").touch()
        assert beside(folder.parent) == [folder.parent.name]
    assert list((tmp_path / "scratch").iterdir()) == []
