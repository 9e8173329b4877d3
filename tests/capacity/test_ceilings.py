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
    (folder,) = cache.iterdir()
    (path,) = folder.iterdir()
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


def test_a_file_a_key_and_nothing_beside_them(cache):
    for number in range(5):
        remember(str(number), FOUND)
    forget("0")
    (folder,) = cache.iterdir()
    keys = [json.loads(path.read_text())["content"]["key"] for path in folder.iterdir()]
    assert sorted(keys) == ["1", "2", "3", "4"]


def test_any_text_is_a_key(cache):
    keys = ["", "a/../../b", "k" * 5000, "\0", "é\n", "('cpu', 0.5)"]
    for key in keys:
        remember(key, {"key": key})
    assert [remembered(key) for key in keys] == [{"key": key} for key in keys]
    assert [path.name for path in cache.parent.iterdir()] == ["cache"]


def test_what_was_found_under_another_key_is_nothing(cache):
    remember("a", FOUND)
    content = the_only_file(cache).read_bytes()
    forget("a")
    remember("b", FOUND)
    the_only_file(cache).write_bytes(content)
    assert remembered("b") is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1, 2]", b"null", b'{"content": 7}', b'{"content": {"found": 709', b"\xff\xfe\x00"],
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
    (cache / "capacity").chmod(0o500)
    try:
        remember("b", FOUND)
        assert remembered("a") == FOUND
        assert remembered("b") is None
    finally:
        (cache / "capacity").chmod(0o700)


def _remember_much(writer: int, count: int) -> None:
    for number in range(count):
        remember(f"{writer} {number % 5}", {"found": number, "fails": None})


def test_two_writers_lose_nothing_of_each_other(cache):
    """What is read meanwhile is always whole."""
    remember("before", FOUND)
    remember("1 0", {"found": -1, "fails": None})
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_remember_much, args=(writer, 200)) for writer in (1, 2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert remembered("1 0")["fails"] is None
        assert remembered("before") == FOUND
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    for writer in (1, 2):
        for number in range(5):
            assert remembered(f"{writer} {number}") == {"found": 195 + number, "fails": None}
    assert remembered("before") == FOUND
    assert len(list((cache / "capacity").iterdir())) == 11
