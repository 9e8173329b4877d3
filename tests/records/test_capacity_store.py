"""Capacity probes on disk."""

from __future__ import annotations

import pytest

from xbench.errors import XbenchError
from xbench.records.capacity import CapacityReport
from xbench.records.capacity_store import find_capacity, read_capacity, write_capacity
from xbench.records.runs import find_run
from xbench.records.schema import Component


def report(optimizer: str = "sgd") -> CapacityReport:
    return CapacityReport(
        limit_bytes=1,
        bound="asked for",
        device="cpu",
        device_name="some processor",
        model="net",
        dataset="data",
        optimizer=optimizer,
        components={"model": Component(name="net")},
        versions={},
        results=[],
    )


def test_what_was_written_is_read(tmp_path):
    folder = write_capacity(tmp_path, report())
    assert folder.parent == tmp_path / "probe-sgd"
    assert [path.name for path in folder.iterdir()] == ["capacity.json"]
    assert read_capacity(folder) == report()


def test_probes_of_the_same_second_have_folders_of_their_own(tmp_path):
    folders = {write_capacity(tmp_path, report()) for _ in range(3)}
    assert len(folders) == 3


def test_names_of_optimizers_do_not_lead_out_of_the_folder(tmp_path):
    folder = write_capacity(tmp_path, report("../../my:Optimizer"))
    assert folder.parent.parent == tmp_path


def test_a_probe_is_found_by_its_path_or_below_the_results(tmp_path):
    folder = write_capacity(tmp_path, report())
    assert find_capacity(tmp_path, str(folder)) == folder
    assert find_capacity(tmp_path, f"probe-sgd/{folder.name}") == folder
    assert find_capacity(tmp_path, "probe-sgd") is None


def test_a_probe_is_not_a_run(tmp_path):
    write_capacity(tmp_path, report())
    with pytest.raises(XbenchError, match="no run"):
        find_run(tmp_path, None)


def test_a_result_of_an_older_version_is_read(tmp_path):
    text = report().model_dump_json(exclude={"schema_version"})
    (tmp_path / "capacity.json").write_text(text)
    assert read_capacity(tmp_path) == report()


@pytest.mark.parametrize("content", ["", "{}", "[", "null", "\0"])
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "capacity.json").write_text(content)
    with pytest.raises(XbenchError, match="missing or damaged"):
        read_capacity(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(XbenchError, match="cannot write results"):
        write_capacity(tmp_path / "results", report())
