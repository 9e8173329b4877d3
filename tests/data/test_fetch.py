"""Fetching a dataset: at whatever point it is stopped, there is the whole of it, what was there before, or
nothing."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from xbench import Source
from xbench.data import fetch as fetch_module
from xbench.data.fetch import destination, fetch_from
from xbench.errors import XbenchError

SOURCE = Source(
    url="https://tiny.example/tiny.zip",
    sha256="ab" * 32,
    size_bytes=1000,
    unpacked_bytes=1000,
    counts={"train/A": 2, "test/A": 1},
    folder="tiny-set",
    page="https://tiny.example",
    licence="Tiny Licence",
    citation="Tiny",
)
NAMES = ("train/A/1.png", "train/A/2.png", "test/A/3.png")


def ignore(stage: str, done: int, total: int) -> None:
    pass


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def archive(tmp_path) -> Path:
    with zipfile.ZipFile(tmp_path / "tiny.zip", "w") as file:
        for name in NAMES:
            file.writestr(name, name)
    return tmp_path / "tiny.zip"


@pytest.fixture
def older(cache) -> Path:
    """A file in the place where the dataset is to come."""
    (cache / "tiny-set").mkdir(parents=True)
    (cache / "tiny-set/older").touch()
    return cache / "tiny-set/older"


def kept_in(cache: Path) -> list[str]:
    """What is in the cache besides the files by which processes lock it."""
    return sorted(path.name for path in cache.iterdir() if path.name != "locks")


def interrupt(*_) -> None:
    raise KeyboardInterrupt


def interrupt_second_rename(monkeypatch) -> None:
    """The first moves away what was there, the second would put the new one in its place."""
    rename, calls = Path.rename, []

    def renamed(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", renamed)


def test_stopped_while_unpacking(cache, archive):
    with pytest.raises(KeyboardInterrupt):
        fetch_from(SOURCE, archive, interrupt)
    assert kept_in(cache) == []
    assert archive.exists()


@pytest.mark.parametrize("function", ["unpack", "take_inventory", "write_manifest"])
def test_stopped_at_any_step_what_was_there_stays(cache, archive, older, monkeypatch, function):
    monkeypatch.setattr(fetch_module, function, interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch_from(SOURCE, archive, ignore, replace=True)
    assert older.exists()
    assert kept_in(cache) == ["tiny-set"]


def test_stopped_between_the_old_and_the_new_the_next_one_does_it(cache, archive, older, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_second_rename(patch)
        fetch_from(SOURCE, archive, ignore, replace=True)
    assert not destination(SOURCE).exists()
    assert fetch_from(SOURCE, archive, ignore).inventory.is_complete
    assert not older.exists()
    assert kept_in(cache) == ["tiny-set"]


def test_each_stage_is_told(cache, archive):
    told: list[tuple[str, int, int]] = []
    fetch_from(SOURCE, archive, lambda *at: told.append(at))
    assert list(dict.fromkeys(stage for stage, _, _ in told)) == [
        "hashing",
        "unpacking",
        "putting the images in place",
    ]
    size_bytes = archive.stat().st_size
    assert ("hashing", size_bytes, size_bytes) in told


def test_an_empty_folder_in_its_place_is_no_hindrance(cache, archive):
    (cache / "tiny-set").mkdir(parents=True)
    assert fetch_from(SOURCE, archive, ignore).inventory.is_complete
    assert kept_in(cache) == ["tiny-set"]


def test_what_is_there_is_not_replaced_unasked(cache, archive, older):
    with pytest.raises(XbenchError, match="already exists"):
        fetch_from(SOURCE, archive, ignore)
    assert older.exists()


def test_what_a_killed_fetch_has_left_is_removed(cache, archive):
    (cache / ".tiny-set.01234567.aside/content/unpacked/train").mkdir(parents=True)
    fetch_from(SOURCE, archive, ignore)
    assert kept_in(cache) == ["tiny-set"]
