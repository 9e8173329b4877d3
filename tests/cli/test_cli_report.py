"""`xbench report`, on runs and probes made by hand."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.cli_process import Cli
from tests.report.report_samples import STAND_IN, cell, failed, memory_pass, run
from tests.report.trace_samples import trace
from xbench.records.capacity import CapacityRecord, CapacityReport, TrialRecord
from xbench.records.capacity_store import write_capacity
from xbench.records.schema import Component, Times
from xbench.records.store import RunFolder

NAMES = [
    *("first-loss-steps", "first-loss-time", "first-loss-closures", "first-loss-examples"),
    *("first-memory", "first-metric-memory", "first-metric-time"),
]
FILES = [f"{name}.{form}" for name in NAMES for form in ("png", "svg")]


def make_run(results: Path) -> RunFolder:
    record = cell(
        "sgd",
        accuracy=0.8,
        dataset=STAND_IN,
        time=Times(training_s=3.0),
        memory_pass=memory_pass(process=10, activations=50),
    )
    folder = RunFolder.create(results, "", run([record]))
    crc32 = folder.write_trace(record.cell_id, trace([3.0, 2.0, 1.0]))
    folder.append(record.model_copy(update={"trace_crc32": crc32}))
    return folder


class Reported:
    """A run of which a report was made."""

    def __init__(self, xbench: Cli, place: Path):
        self.folder = make_run(place / "results")
        self.before = {path: path.read_bytes() for path in self.folder.path.rglob("*") if path.is_file()}
        self.done = xbench(place, "report")


@pytest.fixture(scope="module")
def reported(xbench, tmp_path_factory) -> Reported:
    return Reported(xbench, tmp_path_factory.mktemp("report"))


class TestRun:
    def test_lists_the_files_that_it_writes(self, reported):
        assert (reported.done.returncode, reported.done.stderr) == (0, "")
        where = f"results/tiny/{reported.folder.run_id}/report/figures"
        page = f"results/tiny/{reported.folder.run_id}/report/report.html"
        assert reported.done.stdout.splitlines() == [page, *(f"{where}/{name}" for name in FILES)]
        written = reported.folder.path / "report" / "figures"
        assert sorted(path.name for path in written.iterdir()) == sorted(FILES)

    def test_the_files_are_pictures(self, reported):
        for path in (reported.folder.path / "report" / "figures").iterdir():
            begin = b"\x89PNG" if path.suffix == ".png" else b"<?xml"
            assert path.read_bytes().startswith(begin)

    def test_every_picture_warns_of_stand_in_data(self, reported):
        for path in (reported.folder.path / "report" / "figures").glob("*.svg"):
            assert "STAND-IN DATA: synthetic-xray (synthetic images" in path.read_text()

    def test_the_records_stay_as_they_were(self, reported):
        assert {path: path.read_bytes() for path in reported.before} == reported.before

    def test_the_run_can_still_be_shown(self, reported, xbench):
        shown = xbench(reported.folder.path.parents[2], "show")
        assert shown.returncode == 0
        assert "sgd" in shown.stdout


def test_a_read_only_run_is_reported_elsewhere(xbench, tmp_path):
    folder = make_run(tmp_path / "results")
    shutil.rmtree(folder.path / "logs")
    (folder.path / "report").write_text("in the way")  # as root, the tests may write to read-only folders
    refused = xbench(tmp_path, "report", "tiny")
    assert refused.returncode == 2
    assert "cannot write the report to" in refused.stderr
    assert "hint: choose another folder with --to" in refused.stderr
    assert "Traceback" not in refused.stderr
    done = xbench(tmp_path, "report", "tiny", "--to", "paper")
    assert done.returncode == 0
    assert done.stdout.splitlines() == ["paper/report.html", *(f"paper/figures/{name}" for name in FILES)]


def test_a_damaged_trace_is_told_and_the_rest_is_drawn(xbench, tmp_path):
    folder = make_run(tmp_path / "results")
    (found,) = (folder.path / "traces").iterdir()
    found.write_bytes(b"PAR1")
    done = xbench(tmp_path, "report", str(folder.path), "--to", "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted({Path(line).stem for line in done.stdout.splitlines()}) == sorted([*NAMES[4:], "report"])


def test_a_run_without_figures_says_so(xbench, tmp_path):
    record = failed("sgd", "skipped", "no time")
    RunFolder.create(tmp_path / "results", "", run([record])).append(record)
    done = xbench(tmp_path, "report")
    assert done.returncode == 0
    assert [Path(line).name for line in done.stdout.splitlines()] == ["report.html"]
    assert "has no figures" in done.stderr


def test_an_unknown_run_is_an_error(xbench, tmp_path):
    done = xbench(tmp_path, "report", "nothing")
    assert done.returncode == 2
    assert "no run 'nothing'" in done.stderr


def test_a_closed_pipe_is_no_failure(xbench, tmp_path):
    folder = make_run(tmp_path / "results")
    done: subprocess.CompletedProcess = xbench.into_closed_pipe(tmp_path, "report")
    assert done.stderr == ""
    assert sorted(path.name for path in (folder.path / "report" / "figures").iterdir()) == sorted(FILES)


def test_a_probe_is_drawn(xbench, tmp_path):
    trial = TrialRecord(value=8, outcome="fits", peak_bytes=10**8)
    result = CapacityRecord(
        axis="batch-size",
        limit_bytes=2 * 10**8,
        settings={},
        found=8,
        fails=None,
        peak_bytes=10**8,
        seconds=1.0,
        trials=[trial],
    )
    probe = CapacityReport(
        limit_bytes=2 * 10**8,
        bound="asked for",
        device="cpu",
        device_name="some processor",
        model="net",
        dataset="data",
        optimizer="sgd",
        components={"model": Component(name="net")},
        versions={},
        results=[result],
    )
    folder = write_capacity(tmp_path / "results", probe)
    done = xbench(tmp_path, "report", str(folder))
    assert done.returncode == 0, done.stderr
    assert [Path(line).name for line in done.stdout.splitlines()] == [
        "sgd-capacity-batch-size.png",
        "sgd-capacity-batch-size.svg",
    ]
    assert "limit: 200 MB" in (folder / "report/figures/sgd-capacity-batch-size.svg").read_text()


def test_one_page_shows_several_runs(xbench, tmp_path):
    for _ in range(2):
        make_run(tmp_path / "results")
    done = xbench(tmp_path, "report", "latest~1", "latest", "--to", "both")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "both/report.html").read_text(encoding="utf-8").count("First") >= 2
    assert len(list((tmp_path / "both/figures").iterdir())) == 2
