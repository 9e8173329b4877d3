"""What is remembered of a machine outlives the process, and nothing is lost where it cannot be."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource

import pytest

from xbench.capacity.ceilings import forget, remember, remembered

FOUND = {"found": 709, "fails": 714}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "not made yet" / "cache"
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(folder))
    return folder


def the_only_file(cache):
    (path,) = cache.iterdir()
    return path


def test_what_was_found_is_remembered(cache):
    remember("a", FOUND)
    remember("b", {"micro_batch": 16})
    assert remembered("a") == FOUND
    assert remembered("b") == {"micro_batch": 16}


def test_nothing_was_found(cache):
    assert remembered("a") is None
    remember("a", FOUND)
    assert remembered("b") is None


def test_looking_makes_nothing(cache):
    remembered("a")
    forget("a")
    assert not cache.exists()


def test_what_is_found_anew_replaces_it():
    remember("a", FOUND)
    remember("a", {"found": 700, "fails": None})
    assert remembered("a") == {"found": 700, "fails": None}


def test_what_does_not_hold_is_forgotten():
    remember("a", FOUND)
    remember("b", FOUND)
    forget("a")
    forget("never known")
    assert remembered("a") is None
    assert remembered("b") == FOUND


def test_one_file_and_nothing_beside_it(cache):
    for number in range(5):
        remember(str(number), FOUND)
    forget("0")
    assert sorted(json.loads(the_only_file(cache).read_text())) == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1, 2]", b"null", b'{"a": 7}', b'{"a": {"found": 709', b"\xff\xfe\x00"],
    ids=["empty", "open", "list", "null", "number", "cut", "binary"],
)
def test_a_damaged_file_is_no_file(cache, content):
    remember("a", FOUND)
    path = the_only_file(cache)
    path.write_bytes(content)
    assert remembered("a") is None
    forget("a")
    remember("a", FOUND)
    assert remembered("a") == FOUND
    assert the_only_file(cache) == path


def test_a_folder_that_cannot_be_made_is_no_failure(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path / "file" / "cache"))
    remember("a", FOUND)
    forget("a")
    assert remembered("a") is None


def test_a_folder_that_cannot_be_written_is_no_failure(cache):
    """No file may have more bytes, here: permissions hold nobody back who may do all."""
    remember("a", FOUND)
    before = the_only_file(cache).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        remember("b", FOUND)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert remembered("b") is None
    assert the_only_file(cache).read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not hold root back")
def test_a_folder_without_permission_is_no_failure(cache):
    remember("a", FOUND)
    cache.chmod(0o500)
    try:
        remember("b", FOUND)
        assert remembered("a") == FOUND
        assert remembered("b") is None
    finally:
        cache.chmod(0o700)


def _remember_much(writer: int, count: int) -> None:
    for number in range(count):
        remember(f"{writer} {number % 5}", {"found": number, "fails": None})


def test_two_writers_leave_a_whole_file(cache):
    """The later one wins; what is read meanwhile is always whole."""
    remember("before", FOUND)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_remember_much, args=(writer, 200)) for writer in (1, 2)]
    for writer in writers:
        writer.start()
    path = cache / "capacity.json"
    while any(writer.is_alive() for writer in writers):
        assert isinstance(json.loads(path.read_text()), dict)
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert [item.name for item in cache.iterdir()] == [path.name]
    assert remembered("1 4") == {"found": 199, "fails": None} or remembered("2 4") == {
        "found": 199,
        "fails": None,
    }
    assert remembered("before") == FOUND
