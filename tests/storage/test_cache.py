"""What is saved outlives the process, and nothing fails where it cannot be saved."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource

import pytest

from xbench.storage.cache import drop, load, save

FOUND = {"found": 709, "fails": 714}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "not made yet" / "cache"
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(folder))
    return folder


def files_in(cache):
    return [path for path in cache.rglob("*") if path.is_file()]


def the_only_file(cache):
    (path,) = files_in(cache)
    return path


@pytest.mark.parametrize("value", [FOUND, [1, 2.5, None], "é\udcff", 7, {}])
def test_what_was_saved_is_loaded(value):
    save("a", "key", value)
    assert load("a", "key") == value


def test_nothing_was_saved():
    assert load("a", "key") is None
    save("a", "key", FOUND)
    assert load("a", "other") is None
    assert load("b", "key") is None


def test_looking_makes_nothing(cache):
    load("a", "key")
    drop("a", "key")
    assert not cache.exists()


def test_a_new_value_replaces_the_old_one():
    save("a", "key", FOUND)
    save("a", "key", {"found": 700, "fails": None})
    assert load("a", "key") == {"found": 700, "fails": None}


def test_what_was_dropped_is_gone():
    save("a", "one", FOUND)
    save("a", "two", FOUND)
    drop("a", "one")
    drop("a", "never known")
    assert load("a", "one") is None
    assert load("a", "two") == FOUND


def test_a_file_a_key_and_nothing_beside_them(cache):
    for number in range(5):
        save("a", str(number), FOUND)
    drop("a", "0")
    keys = [json.loads(path.read_text())["content"]["key"] for path in files_in(cache)]
    assert sorted(keys) == [["a", str(number)] for number in (1, 2, 3, 4)]


def test_any_text_is_a_key(cache):
    keys = ["", "a/../../b", "k" * 5000, "\0", "é\n\udcff", "('cpu', 0.5)"]
    for key in keys:
        save("a", key, {"key": key})
    assert [load("a", key) for key in keys] == [{"key": key} for key in keys]
    assert [path.name for path in cache.parent.iterdir()] == ["cache"]


def test_the_value_of_another_key_is_nothing(cache):
    save("a", "one", FOUND)
    content = the_only_file(cache).read_bytes()
    drop("a", "one")
    save("a", "two", FOUND)
    the_only_file(cache).write_bytes(content)
    assert load("a", "two") is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1, 2]", b"null", b'{"content": 7}', b'{"content": {"found": 709', b"\xff\xfe\x00"],
    ids=["empty", "open", "list", "null", "number", "cut", "binary"],
)
def test_a_damaged_file_is_no_file(cache, content):
    save("a", "key", FOUND)
    path = the_only_file(cache)
    path.write_bytes(content)
    assert load("a", "key") is None
    save("a", "key", FOUND)
    assert load("a", "key") == FOUND
    assert the_only_file(cache) == path


def test_what_a_killed_process_was_writing_is_written_over(cache):
    save("a", "key", FOUND)
    path = the_only_file(cache)
    path.rename(path.with_name(f".{path.name}.partial"))
    assert load("a", "key") is None
    save("a", "key", FOUND)
    assert the_only_file(cache) == path


def test_a_folder_that_cannot_be_made_is_no_failure(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path / "file" / "cache"))
    save("a", "key", FOUND)
    drop("a", "key")
    assert load("a", "key") is None


def test_a_disk_that_is_full_is_no_failure(cache):
    save("a", "one", FOUND)
    before = the_only_file(cache).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        save("a", "two", FOUND)
        save("a", "one", {"found": 1})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load("a", "two") is None
    assert load("a", "one") == FOUND
    assert before in [path.read_bytes() for path in files_in(cache)]


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not hold root back")
def test_a_folder_without_permission_is_no_failure(cache):
    save("a", "one", FOUND)
    folder = the_only_file(cache).parent
    folder.chmod(0o500)
    try:
        save("a", "two", FOUND)
        assert load("a", "one") == FOUND
        assert load("a", "two") is None
    finally:
        folder.chmod(0o700)


def _save_much(writer: int, count: int) -> None:
    for number in range(count):
        save("a", f"{writer} {number % 5}", {"found": number, "fails": None})


def test_two_writers_lose_nothing_of_each_other(cache):
    """What is read meanwhile is always whole."""
    save("a", "before", FOUND)
    save("a", "1 0", {"found": -1, "fails": None})
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_save_much, args=(writer, 100)) for writer in (1, 2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert load("a", "1 0")["fails"] is None
        assert load("a", "before") == FOUND
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    for writer in (1, 2):
        for number in range(5):
            assert load("a", f"{writer} {number}") == {"found": 95 + number, "fails": None}
    assert load("a", "before") == FOUND
    assert len(files_in(cache)) == 11


def test_two_writers_of_one_key_never_mix_their_values():
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_save_much, args=(1, 100)) for _ in range(2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        found = load("a", "1 0")
        assert found is None or (found["found"] % 5, found["fails"]) == (0, None)
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
