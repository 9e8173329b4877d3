"""Caches and other processes: several that build the same, ones that are killed, disks that fill up."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data import cache_jobs
from xbench.data.features import FeatureFile
from xbench.errors import XbenchError

JOBS = ("decode", "features", "fetch")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path / "cache"))
    cache_jobs.make_archive(tmp_path / "tiny.zip")
    return tmp_path / "cache"


@pytest.fixture
def start(cache):
    """`start(job)`: another process that waits for `go`."""
    started = []

    def run(job: str, pause_s: float = 0.0, limit_bytes: int = 0) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-m", cache_jobs.__name__, job, str(cache), str(pause_s), str(limit_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def go(process: subprocess.Popen) -> None:
    process.stdin.write("\n")
    process.stdin.flush()


def do_here(job: str, cache: Path) -> None:
    """The job in this process; and what it made is right, whole, and all that there is."""
    if job == "decode":
        data = cache_jobs.build()
        with data.reader(cache_jobs.COUNT) as reader:
            made = reader.read(data.rows)
        assert np.array_equal(made, [cache_jobs.pixels(n) for n in range(cache_jobs.COUNT)])
        assert names(cache / "images") == [data.pixels_path.parent.name]
        assert names(data.pixels_path.parent) == ["index.json", "pixels.u8"]
    elif job == "features":
        cache_jobs.fill(cache)
        file = FeatureFile.find(cache_jobs.features(cache).folder)
        assert file.present().all()
        with file.reader(cache_jobs.COUNT) as reader:
            made = reader.read(range(cache_jobs.COUNT))
        assert np.array_equal(made, np.concatenate([cache_jobs.value(n) for n in range(cache_jobs.COUNT)]))
        assert names(cache / "features") == ["key"]
    else:
        if not (cache / "tiny-set").exists():
            cache_jobs.fetch_from(cache_jobs.SOURCE, cache.with_name("tiny.zip"), lambda *at: None)
        assert names(cache) == ["locks", "tiny-set"]
        for number in range(cache_jobs.COUNT):
            (image,) = (cache / "tiny-set").glob(f"*/A/{number}.png")
            assert image.read_bytes() == bytes([number]) * 2000


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def no_leftovers(cache: Path) -> bool:
    return not list(cache.rglob("*.aside"))


@pytest.mark.parametrize("job", JOBS)
def test_two_at_the_same_moment(cache, start, job):
    processes = [start(job, 0.002), start(job, 0.002)]
    for process in processes:
        go(process)
    told = [process.communicate(timeout=60)[0].splitlines()[-1] for process in processes]
    if job == "fetch":  # one is told to wait
        other = "another process is filling" if "filling" in "".join(told) else "already exists"
        assert sorted([line == "done" for line in told]) == [False, True]
        assert any(other in line for line in told)
    else:
        assert told == ["done", "done"]
    assert no_leftovers(cache)
    do_here(job, cache)


@pytest.mark.parametrize("job", ["decode", "features"])
def test_two_that_find_the_same_damage(cache, start, job):
    do_here(job, cache)
    (folder,) = (cache / ("images" if job == "decode" else "features")).iterdir()
    (folder / "index.json").write_text("{")
    processes = [start(job, 0.002), start(job, 0.002)]
    for process in processes:
        go(process)
    assert [process.communicate(timeout=60)[0].splitlines()[-1] for process in processes] == ["done", "done"]
    assert no_leftovers(cache)
    do_here(job, cache)


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("lines", [1, 12, 39])
def test_a_killed_one_is_no_hindrance(cache, start, job, lines):
    process = start(job, 0.02)
    go(process)
    for _ in range(lines):
        assert process.stdout.readline().startswith("at")
    process.kill()
    process.wait()
    if job != "features":
        assert not no_leftovers(cache)
    do_here(job, cache)
    assert no_leftovers(cache)


@pytest.mark.parametrize("job", ["decode", "features"])
def test_a_killed_one_leaves_what_another_is_making(cache, start, job):
    killed, other = start(job, 0.02), start(job, 0.02)
    for process in (killed, other):
        go(process)
        assert process.stdout.readline().startswith("at")
    killed.kill()
    killed.wait()
    do_here(job, cache) if job == "features" else cache_jobs.build()
    assert other.communicate(timeout=60)[0].endswith("done\n")
    do_here(job, cache)


@pytest.mark.parametrize(("job", "limit_bytes"), [("decode", 5000), ("features", 1000), ("fetch", 1500)])
def test_no_file_may_be_that_large(cache, start, job, limit_bytes):
    process = start(job, 0.0, limit_bytes)
    go(process)
    last = process.communicate(timeout=60)[0].splitlines()[-1]
    assert process.returncode == 2
    assert last.startswith("error") and "File too large" in last
    assert "XBENCH_CACHE_DIR" in last and "ulimit" in last
    assert no_leftovers(cache)
    do_here(job, cache)


@pytest.mark.parametrize("how", ["raises", "writes less"])
@pytest.mark.parametrize("job", ["decode", "features"])
def test_a_disk_that_fills_up(cache, monkeypatch, job, how):
    pwrite, calls = os.pwrite, []

    def full(descriptor, data, at):
        calls.append(at)
        if len(calls) < 20:
            return pwrite(descriptor, data, at)
        if how == "raises":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, memoryview(data).cast("B")[:10], at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(XbenchError, match=r"cannot be .* in .*: No space left") as caught:
            do_here(job, cache)
    assert "free some space" in caught.value.hint
    assert no_leftovers(cache)
    do_here(job, cache)


@pytest.mark.parametrize("job", JOBS)
def test_a_cache_that_cannot_be_written(cache, monkeypatch, job):
    cache.write_text("a file where a folder is needed")
    archive = cache.with_name("tiny.zip")
    for place in (cache, cache / "deeper", Path("/proc/xbench")):
        monkeypatch.setenv("XBENCH_CACHE_DIR", str(place))
        with pytest.raises(XbenchError) as caught:
            if job == "decode":
                cache_jobs.build(on_progress=lambda *_: pytest.fail("it was begun all the same"))
            elif job == "features":
                cache_jobs.features(place).make()
            else:
                cache_jobs.fetch_from(cache_jobs.SOURCE, archive, lambda *_: pytest.fail("it was begun"))
        assert str(place) in caught.value.message and "\n" not in caught.value.message
        assert "XBENCH_CACHE_DIR" in caught.value.hint
