"""`xbench doctor`, on the machine that runs the tests."""

from __future__ import annotations

import json

import psutil
import pytest


@pytest.fixture(scope="module")
def document(xbench, tmp_path_factory):
    flags = ["--device", "cpu", "--memory-limit", "200MB", "--format", "json"]
    done = xbench(tmp_path_factory.mktemp("doctor"), "doctor", *flags)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)  # so there is nothing else on stdout


class TestDocument:
    def test_limit_of_the_user_binds(self, document):
        memory = document["memory"]
        assert (memory["bound"], memory["limit_bytes"]) == ("memory_limit", 200_000_000)
        assert [bound["source"] for bound in memory["bounds"] if bound["binds"]] == ["memory_limit"]

    def test_what_the_machine_has_is_there_as_well(self, document):
        available = document["memory"]["bounds"][-1]
        assert available["source"] == "available memory"
        assert 200_000_000 < available["limit_bytes"] < psutil.virtual_memory().total
        assert "for other programs" in available["detail"]

    def test_how_things_are_measured(self, document):
        assert document["host_peaks"] in ("clear_refs", "sampled")
        assert document["malloc"]["MALLOC_ARENA_MAX"] == "1"
        assert isinstance(document["memory"]["hard"], bool)
        assert (document["memory"]["reserve_bytes"] is None) != document["memory"]["hard"]
        assert "oom_kills_file" in document

    def test_what_is_here(self, document, xbench):
        assert document["device"] == "cpu"
        assert document["threads"] == 1  # these tests ask for one
        assert document["versions"]["torch"]
        assert document["cache"] == xbench.environment["XBENCH_CACHE_DIR"]


def test_table(xbench, tmp_path):
    done = xbench(tmp_path, "doctor", "--device", "cpu", "--memory-limit", "50%")
    assert done.returncode == 0, done.stderr
    (bound,) = (line for line in done.stdout.splitlines() if "binds" in line)
    for part in ("memory_limit", "asked for: 50% of "):
        assert part in bound
    for part in ("available memory", "host peaks", "OOM killer", "MALLOC_ARENA_MAX=1", "torch ", "threads"):
        assert part in done.stdout


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--device", "gpu"], "'gpu' is not a device"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--memory-limit", "150%"], "'150%' is not a size or share"),
        (["--memory-limit", "much"], "12GB (10^9 bytes each), 12GiB (2^30) or 50%"),
        (["--format", "xml"], "xml"),
    ],
    ids=lambda value: value[1] if isinstance(value, list) else None,
)
def test_mistakes(xbench, tmp_path, flags, said):
    done = xbench(tmp_path, "doctor", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_is_listed(xbench, tmp_path):
    assert " doctor " in xbench(tmp_path, "--help").stdout
