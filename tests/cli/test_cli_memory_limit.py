"""Hard memory limits, and results for other programs."""

from __future__ import annotations

import json
import re

import psutil
import pytest

from tests.cli.cli_process import records_of

SUITE = """
[suite]
name = "limits"

[[experiment]]
name = "not-this-one"
model = "tiny_parts:build_model"
dataset = "tiny_parts:build_dataset"
optimizer = "sgd"

[[experiment]]
name = "limited"
model = "tiny_parts:build_model"
dataset = "tiny_parts:build_dataset"
train_size = 20
epochs = 2
batch_size = 5
optimizer = [
  { label = "hoarding", name = "tiny_parts:Hoarding" },
  { label = "chatty", name = "tiny_parts:Chatty" },
]
"""
LIMIT = 1_500_000_000


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("limit")
    (folder / "suite.toml").write_text(SUITE)
    return folder


@pytest.fixture(scope="module")
def done(xbench, place, allow_user_code):
    flags = ["--only", "limited", "--set", "epochs=3", "--memory-limit", "1500MB", "--format", "json"]
    return xbench(place, "run", "suite.toml", *flags, *allow_user_code)


@pytest.fixture(scope="module")
def document(done):
    return json.loads(done.stdout)  # so there is nothing else on stdout


def test_exit_code(done):
    assert done.returncode == 1, done.stderr


def test_only_what_was_asked_for(document):
    assert [experiment["name"] for experiment in document["experiments"]] == ["limited"]


def test_one_is_out_of_memory_and_the_other_done(document):
    hoarding, chatty = document["experiments"][0]["cells"]
    assert (hoarding["status"], chatty["status"]) == ("oom", "done")
    size = r"out of memory: an allocation of [0-9.]+ MB failed under the limit of 1.50 GB"
    assert re.search(size, hoarding["reason"])


def test_limit_is_recorded_and_was_kept(document):
    for cell in document["experiments"][0]["cells"]:
        assert cell["memory"]["limit_bytes"] == LIMIT
        assert cell["memory"]["peak_host_bytes"] <= LIMIT


def test_override_reaches_the_training(document):
    chatty = document["experiments"][0]["cells"][1]
    assert chatty["settings"]["epochs"] == 3
    assert [epoch["epoch"] for epoch in chatty["epochs"]] == [1, 2, 3]
    assert chatty["steps"] == 12


def test_document_holds_the_records(document, place):
    """The last of each cell's attempts."""
    last = {record["cell_id"]: record for record in records_of(place)}
    assert document["experiments"][0]["cells"] == list(last.values())
    assert [record["attempt"] for record in last.values()] == [2, 1]


@pytest.mark.slow
def test_more_than_there_is(xbench, place, allow_user_code):
    """A machine's own bound is kept, and told."""
    folder = place / "more"
    folder.mkdir()
    (folder / "suite.toml").write_text(SUITE)
    flags = ["--only", "limited", "--set", "epochs=1", "--memory-limit", "1000TB", *allow_user_code]
    done = xbench(folder, "run", "suite.toml", *flags)
    assert (
        "warning: memory_limit 1000TB is more than this machine allows: cells are limited to " in done.stderr
    )
    limits = {record["memory"]["limit_bytes"] for record in records_of(folder)}
    assert len(limits) == 1
    assert 0 < limits.pop() <= psutil.virtual_memory().total


def test_a_share(xbench, place, allow_user_code):
    flags = ["--only", "not-this-one", "--memory-limit", "50%", "--dry-run", *allow_user_code]
    assert xbench(place, "run", "suite.toml", *flags).returncode == 0
