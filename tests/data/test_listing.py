"""The stamp of a dataset's folders changes with its files, and with nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xbench.data.listing import listing_folders, listing_stamp

NAMES = ("train/a/1.png", "train/a/2.png", "train/b/deep/3.png", "test/a/4.png")


@pytest.fixture
def root(tmp_path) -> Path:
    root = tmp_path / "set"
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


@pytest.fixture
def folders(root) -> tuple[str, ...]:
    return listing_folders([root / name for name in NAMES])


def test_folders_are_those_of_the_files_up_to_the_common_one(root, folders):
    expected = {"", "train", "train/a", "train/b", "train/b/deep", "test", "test/a"}
    assert folders == tuple(sorted(str(root / name) for name in expected))


def test_files_of_one_folder_have_that_folder(root):
    assert listing_folders([root / "train/a/1.png", root / "train/a/2.png"]) == (str(root / "train/a"),)
    assert listing_folders([root / "train/a/1.png"]) == (str(root / "train/a"),)


def test_files_that_share_nothing_but_the_top():
    assert listing_folders([Path("/x/1.png"), Path("/y/2.png")]) == ("/", "/x", "/y")


def test_paths_from_the_current_folder(root, monkeypatch):
    monkeypatch.chdir(root)
    assert listing_folders([Path("train/a/1.png"), Path("test/a/4.png")]) == tuple(
        sorted(str(root / name) for name in ("", "train", "train/a", "test", "test/a"))
    )


def test_no_files_have_no_folders():
    assert listing_folders([]) == ()
    assert listing_stamp(()) == listing_stamp(())


def test_the_stamp_stays_while_nothing_changes(root, folders):
    before = listing_stamp(folders)
    for name in NAMES:
        (root / name).read_bytes()
    assert listing_stamp(folders) == before


def test_another_process_gives_the_same_stamp(folders):
    code = "import sys; from xbench.data.listing import listing_stamp; print(listing_stamp(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *folders]
    assert subprocess.check_output(command, text=True).strip() == listing_stamp(folders)


def add(root: Path):
    (root / "test/a/5.png").touch()


def add_to_a_folder_of_folders(root: Path):
    (root / "train/5.png").touch()


def add_a_class(root: Path):
    (root / "train/c").mkdir()


def remove(root: Path):
    (root / "train/b/deep/3.png").unlink()


def rename(root: Path):
    (root / "train/a/1.png").rename(root / "train/a/0.png")


def lengthen(root: Path):
    keep_time(root / "train/a/1.png", lambda path: path.write_bytes(b"longer than it was before"))


def touch(root: Path):
    path = root / "train/a/1.png"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def replace_with_the_same_size_and_time(root: Path):
    path = root / "train/a/1.png"
    keep_time(path, lambda path: path.write_bytes(path.read_bytes()[::-1]))


def swap(root: Path):
    (root / "train/a/1.png").rename(root / "train/a/x")
    os.utime(root / "train/a/2.png", ns=(0, 1))
    (root / "train/a/2.png").rename(root / "train/a/1.png")
    (root / "train/a/x").rename(root / "train/a/2.png")


def another_kind(root: Path):
    path = root / "train/a/1.png"
    path.unlink()
    path.mkdir()


def lose_a_folder(root: Path):
    shutil.rmtree(root / "train/b/deep")


def lose_all(root: Path):
    shutil.rmtree(root)


def file_for_folder(root: Path):
    shutil.rmtree(root / "test/a")
    (root / "test/a").touch()


def keep_time(path: Path, change) -> None:
    before = path.stat()
    change(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        add,
        add_to_a_folder_of_folders,
        add_a_class,
        remove,
        rename,
        lengthen,
        touch,
        replace_with_the_same_size_and_time,
        swap,
        another_kind,
        lose_a_folder,
        lose_all,
        file_for_folder,
    ],
)
def test_the_stamp_changes(root, folders, change):
    before = listing_stamp(folders)
    change(root)
    assert listing_stamp(folders) != before


def test_what_a_link_leads_to_is_looked_at(root, folders, tmp_path):
    target = tmp_path / "elsewhere.png"
    (root / "train/a/link.png").symlink_to(target)
    dangling = listing_stamp(folders)
    target.write_bytes(b"here")
    there = listing_stamp(folders)
    os.utime(target, ns=(0, 1))
    assert len({dangling, there, listing_stamp(folders)}) == 3


def test_names_of_any_bytes(tmp_path):
    before = listing_stamp((str(tmp_path),))
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n'.png")).touch()
    except OSError:
        pytest.skip("this file system takes names of Unicode alone")
    assert listing_stamp((str(tmp_path),)) != before


def test_six_thousand_files_take_no_time(tmp_path):
    for number in range(6000):
        (tmp_path / f"image-{number}.jpeg").touch()
    folders = listing_folders(tmp_path / f"image-{number}.jpeg" for number in range(6000))
    took_s = []
    for _ in range(5):
        started = time.process_time()
        listing_stamp(folders)
        took_s.append(time.process_time() - started)
    assert min(took_s) < 0.06
