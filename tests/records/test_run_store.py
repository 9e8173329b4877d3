"""A run's folder: what is written can be read, whatever happened in between."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path

import pytest

from tests.records.record_samples import cell, outputs, run
from xbench.errors import XbenchError
from xbench.records import store
from xbench.records.memory import MemoryRecord
from xbench.records.runs import find_run, find_runs, runs_of_suite
from xbench.records.schema import CellRecord, Component, EpochRecord, Times
from xbench.records.store import RunFolder, check_writable, lock_suite_runs
from xbench.records.traces import TraceRow

DECLARED = {"name": "mae", "title": "mean absolute error", "direction": "min", "split": "test"}


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder.create(tmp_path, "[suite]\n", run("a", "b", "c"))


def edit_last_line(folder: RunFolder, edit) -> None:
    """Rewrite the last record as other software would have written it."""
    path = folder.path / "cells.jsonl"
    *before, last = path.read_text().splitlines()
    document = json.loads(last)
    edit(document)
    path.write_text("\n".join([*before, json.dumps(document)]) + "\n")


class TestCreate:
    def test_layout(self, tmp_path):
        text = "# a suite\n[suite]\nname = 'größer'\n"
        folder = RunFolder.create(tmp_path / "results", text, run("a", suite="my-suite"))
        assert folder.path.parent == tmp_path / "results" / "my-suite"
        assert (folder.path / "suite.toml").read_text(encoding="utf-8") == text
        assert json.loads((folder.path / "run.json").read_text())["suite"] == "my-suite"
        assert folder.trace_path("a").parent.is_dir()
        assert folder.outputs_path("a").parent.is_dir()
        assert folder.log_path("a").parent.is_dir()

    def test_runs_of_one_second_have_folders_of_their_own(self, tmp_path):
        folders = [RunFolder.create(tmp_path, f"# {i}\n", run(f"cell-{i}")) for i in range(5)]
        assert len({folder.path for folder in folders}) == 5
        for number, folder in enumerate(folders):
            assert (folder.path / "suite.toml").read_text() == f"# {number}\n"
            assert folder.read()[0].cells[0].cell_id == f"cell-{number}"

    def test_results_that_cannot_be_written(self, tmp_path):
        (tmp_path / "taken").write_text("a file")
        with pytest.raises(XbenchError, match="cannot write results") as caught:
            RunFolder.create(tmp_path / "taken", "", run("a"))
        assert "--out" in caught.value.hint


class TestWhole:
    """A folder appears with all that is in it."""

    def test_nothing_is_left_beside_it(self, folder):
        assert [path.name for path in folder.path.parent.iterdir()] == [folder.run_id]
        assert not folder.run_id.startswith(".")

    @pytest.fixture
    def unfinished(self, tmp_path):
        """What is left of a run that was killed while it made its folder."""
        left = tmp_path / "tiny" / ".20260101-000000.abcd1234.aside"
        (left / "content").mkdir(parents=True)
        (left / "content" / "suite.toml").touch()
        # One that was killed a moment later, too.
        (left / "content" / "run.json").write_text(run("a", suite="tiny").model_dump_json())
        return left

    def test_one_that_did_not_get_so_far_is_no_run(self, unfinished, tmp_path):
        assert runs_of_suite(tmp_path, "tiny") == []
        for wanted in (None, "tiny"):
            with pytest.raises(XbenchError, match="no run"):
                find_run(tmp_path, wanted)

    def test_and_is_removed_by_the_next(self, unfinished, tmp_path):
        kept = [RunFolder.create(tmp_path, "", run("a", suite=suite)) for suite in ("tiny", "other")]
        assert not unfinished.exists()
        assert [find_run(tmp_path, suite) for suite in ("tiny", "other")] == kept

    def test_a_disk_that_is_full(self, tmp_path, monkeypatch):
        def full(path, content):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(store, "atomic_write", full)
        with pytest.raises(XbenchError, match=r"cannot write results to .*: No space left on device"):
            RunFolder.create(tmp_path, "", run("a", suite="tiny"))
        assert runs_of_suite(tmp_path, "tiny") == []

    def test_what_is_declared_can_be_written_anew(self, folder):
        folder.append(cell("b"))
        folder.write_run(run("b", "d"))
        assert folder.read() == (run("b", "d"), [cell("b")])
        assert sorted(path.name for path in folder.path.iterdir()) == [
            "cells.jsonl",
            "logs",
            "outputs",
            "run.json",
            "suite.toml",
            "traces",
        ]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    """A bit of the names of columns, of which Parquet has no checksum."""
    content = path.read_bytes()
    place = content.index(b"l", len(content) // 2)
    path.write_bytes(content[:place] + b"m" + content[place + 1 :])


def remove_and_make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def with_tables(folder: RunFolder) -> CellRecord:
    """A cell at its second attempt, with a trace and outputs."""
    crc32s = {"trace_crc32": folder.write_trace("a", [TraceRow(1, 1, 0.5, 0.1, 1, 10, None, None)], 2)}
    crc32s["outputs_crc32"] = folder.write_outputs("a", outputs(), 2)
    return cell("a", attempt=2, **crc32s)


class TestTables:
    """Traces and outputs are read with the checksums that the record has."""

    def test_whole_ones(self, folder):
        record = with_tables(folder)
        assert [row.step for row in folder.read_trace(record)] == [1]
        assert folder.read_outputs(record).names == outputs().names

    @pytest.mark.parametrize("name", ["trace", "outputs"])
    @pytest.mark.parametrize("hurt", [cut, flip, remove_and_make_pipe])
    def test_a_damaged_one_is_an_error_that_names_it(self, folder, name, hurt):
        record = with_tables(folder)
        path = getattr(folder, f"{name}_path")("a", 2)
        hurt(path)
        with pytest.raises((OSError, ValueError), match=re.escape(str(path))):
            getattr(folder, f"read_{name}")(record)


class TestAdopt:
    """A cell of another run is taken over with what it left."""

    @pytest.fixture
    def other(self, tmp_path) -> RunFolder:
        return RunFolder.create(tmp_path, "# other\n", run("a", "b"))

    def test_as_the_only_attempt(self, folder, other):
        record = cell("a", attempt=3, seed=4)
        other.append(record)
        other.write_trace("a", [], 3)
        other.write_outputs("a", outputs(), 3)
        other.log_path("a").write_bytes(b"said\xff\n")
        adopted, damaged = folder.adopt(record, other)
        assert damaged == []
        assert adopted == record.model_copy(update={"attempt": 1, "reused_from": other.run_id})
        assert folder.read()[1] == [adopted]
        assert folder.trace_path("a").read_bytes() == other.trace_path("a", 3).read_bytes()
        assert folder.outputs_path("a").read_bytes() == other.outputs_path("a", 3).read_bytes()
        assert folder.log_path("a").read_bytes() == b"said\xff\n"

    def test_that_said_nothing_and_has_no_trace(self, folder, other):
        folder.adopt(cell("a"), other)
        assert not folder.log_path("a").exists()
        assert not folder.trace_path("a").exists()
        assert not folder.outputs_path("a").exists()

    def test_without_a_log_that_is_a_link_to_another_file(self, folder, other, tmp_path):
        (tmp_path / "secret").write_text("private key")
        other.log_path("a").symlink_to(tmp_path / "secret")
        _, (sentence,) = folder.adopt(cell("a"), other)
        assert sentence.endswith("the cell is reused without its log")
        assert not folder.log_path("a").exists()

    def test_into_a_folder_of_an_xbench_that_kept_no_outputs(self, folder, other):
        folder.outputs_path("a").parent.rmdir()
        other.write_outputs("a", outputs())
        folder.adopt(cell("a"), other)
        assert folder.outputs_path("a").read_bytes() == other.outputs_path("a").read_bytes()

    def test_where_it_ran_first_is_what_counts(self, folder, other, tmp_path):
        third = RunFolder.create(tmp_path, "", run("a"))
        first, _ = folder.adopt(cell("a"), other)
        second, _ = third.adopt(first, folder)
        assert second.reused_from == other.run_id

    @pytest.mark.parametrize("name", ["trace", "outputs"])
    @pytest.mark.parametrize("hurt", [cut, flip, remove_and_make_pipe])
    def test_without_a_damaged_file(self, folder, other, name, hurt):
        record = with_tables(other)
        path = getattr(other, f"{name}_path")("a", 2)
        hurt(path)
        adopted, (sentence,) = folder.adopt(record, other)
        assert str(path) in sentence
        assert sentence.endswith(f"the cell is reused without its {name}")
        expected = {"attempt": 1, "reused_from": other.run_id, f"{name}_crc32": None}
        assert adopted == record.model_copy(update=expected)
        assert not getattr(folder, f"{name}_path")("a").exists()
        kept = {"trace": folder.read_outputs, "outputs": folder.read_trace}[name]
        assert kept(adopted) is not None

    def test_a_file_that_somebody_removed_is_not_damaged(self, folder, other):
        record = with_tables(other)
        other.trace_path("a", 2).unlink()
        adopted, damaged = folder.adopt(record, other)
        assert damaged == []
        assert (adopted.trace_crc32, adopted.outputs_crc32) == (None, record.outputs_crc32)


class TestRead:
    def test_round_trip(self, folder):
        record = cell(
            "a",
            status="diverged",
            reason='a "quoted" reason, with ünïcode\nand a line break',
            settings={"train_size": "all", "class_weights": {"NORMAL": 2.0}, "threads": None},
            ran={"batch_size": 5, "history_size": None},
            metrics={"auc": 0.5, "precision": None},
            time=Times(training_s=1 / 3),
            memory=MemoryRecord(peak_host_bytes=2**40 + 1),
            epochs=[EpochRecord(epoch=1, values={"train_loss": 0.1})],
            device={"name": "cpu", "threads": 2},
        )
        folder.append(record)
        read_run, records = folder.read()
        assert read_run == run("a", "b", "c")
        assert records == [record]

    def test_hyperparameters_that_json_has_no_number_for(self, folder):
        folder.append(cell("a", optimizer=Component(name="sgd", params={"lr": math.inf})))
        text = (folder.path / "cells.jsonl").read_text()
        assert json.loads(text, parse_constant=pytest.fail)["optimizer"]["params"] == {"lr": "Infinity"}

    def test_a_line_a_record(self, folder):
        folder.append(cell("a", reason="one\ntwo"))
        folder.append(cell("b"))
        lines = (folder.path / "cells.jsonl").read_text().splitlines()
        assert [json.loads(line)["cell_id"] for line in lines] == ["a", "b"]

    @pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
    def test_separators_that_json_leaves_alone(self, folder, separator):
        record = cell("a", reason=f"one{separator}two")
        folder.append(record)
        assert folder.read()[1] == [record]

    def test_last_line_of_a_cell_wins(self, folder):
        folder.append(cell("a", status="error", reason="first try"))
        folder.append(cell("b"))
        folder.append(cell("a", attempt=2))
        records = folder.read()[1]
        assert [(record.cell_id, record.status, record.attempt) for record in records] == [
            ("a", "done", 2),
            ("b", "done", 1),
        ]

    def test_order_is_the_plans(self, folder):
        for cell_id in ("c", "unplanned", "a", "b"):
            folder.append(cell(cell_id))
        assert [record.cell_id for record in folder.read()[1]] == ["a", "b", "c", "unplanned"]

    def test_before_any_cell_has_ended(self, folder):
        assert folder.read() == (run("a", "b", "c"), [])

    @pytest.mark.parametrize(
        "hostile", ["/etc", "../../elsewhere", "a/b", "..", "", "a\n", "a\0", "a b", "x" * 65]
    )
    def test_no_cell_has_a_name_that_leads_elsewhere(self, folder, hostile):
        for cell_id in ("a", "b"):
            folder.append(cell(cell_id))
        edit_last_line(folder, lambda document: document.update(cell_id=hostile))
        read_run, records = folder.read()
        assert [record.cell_id for record in records] == ["a"]
        assert ":2: not a record" in read_run.warnings[0]

    @pytest.mark.parametrize("damage", ['{"cell_id": "b", "sta', '{"cell_id": "b"}', "null", "{}", "\0\0\0"])
    def test_damaged_line_is_named_and_left_out(self, folder, damage):
        folder.append(cell("a"))
        with (folder.path / "cells.jsonl").open("a") as file:
            file.write(f"{damage}\n")
        folder.append(cell("c"))
        read_run, records = folder.read()
        assert [record.cell_id for record in records] == ["a", "c"]
        (warning,) = read_run.warnings
        assert f"{folder.path / 'cells.jsonl'}:2" in warning

    def test_line_that_a_crash_cut_short_is_left_out(self, folder):
        folder.append(cell("a"))
        with (folder.path / "cells.jsonl").open("a") as file:
            file.write(cell("b").model_dump_json()[:-20])
        assert folder.read()[1] == [cell("a")]

    def test_what_a_crash_cut_short_does_not_spoil_the_next_line(self, folder):
        folder.append(cell("a"))
        with (folder.path / "cells.jsonl").open("a") as file:
            file.write(cell("b").model_dump_json()[:-20])
        folder.append(cell("c"))
        assert folder.read() == (run("a", "b", "c"), [cell("a"), cell("c")])

    def test_line_that_is_no_text_is_named(self, folder):
        (folder.path / "cells.jsonl").write_bytes(b"\xff\xfe\n")
        read_run, records = folder.read()
        assert records == []
        assert "cells.jsonl:1" in read_run.warnings[0]

    @pytest.mark.parametrize("damage", [None, "", '{"suite": ', "{}", "[]"])
    def test_run_json_missing_or_damaged(self, folder, damage):
        (folder.path / "run.json").unlink()
        if damage is not None:
            (folder.path / "run.json").write_text(damage)
        with pytest.raises(XbenchError, match=r"no readable run\.json") as caught:
            folder.read()
        assert str(folder.path) in caught.value.message
        assert caught.value.hint

    @pytest.mark.parametrize("name", ["run.json", "cells.jsonl"])
    def test_a_pipe_in_place_of_a_file_is_told_at_once(self, folder, name):
        (folder.path / name).unlink(missing_ok=True)
        os.mkfifo(folder.path / name)
        with pytest.raises(XbenchError, match=rf"{name}"):
            folder.read()

    def test_a_run_json_without_end_does_not_fill_memory(self, folder, monkeypatch):
        monkeypatch.setattr(store, "MAX_RUN_BYTES", (folder.path / "run.json").stat().st_size)
        assert folder.read_run().suite
        with (folder.path / "run.json").open("a") as file:
            file.write(" ")
        with pytest.raises(XbenchError, match="no readable run"):
            folder.read_run()

    def test_fields_of_a_newer_or_older_xbench_are_left_alone(self, folder):
        folder.append(cell("a"))

        def add_fields(document):
            document["energy_joules"] = 12.5
            document["memory"]["swap"] = {"peak": 1}

        edit_last_line(folder, add_fields)
        run_json = json.loads((folder.path / "run.json").read_text())
        fields = {"cluster": "abc", "request": {"stamp": "1f", "folders": ["/x"], "absent": []}}
        (folder.path / "run.json").write_text(json.dumps(run_json | fields))
        assert folder.read() == (run("a", "b", "c"), [cell("a")])

    @pytest.mark.parametrize(
        ("metrics", "is_read"),
        [
            ({"brier": 0.1}, True),
            ({"brier": None}, True),
            ({"brier": "low"}, False),
            ({"brier": [0.1]}, False),
            ([], False),
        ],
    )
    def test_metrics_are_numbers_by_name(self, folder, metrics, is_read):
        folder.append(cell("a"))
        edit_last_line(folder, lambda document: document.update(metrics=metrics))
        assert [record.metrics for record in folder.read()[1]] == [metrics] * is_read

    @pytest.mark.parametrize("field", ["metrics", "epoch_metrics"])
    @pytest.mark.parametrize(
        "declared",
        [[DECLARED, DECLARED], [{**DECLARED, "direction": "up"}], [{**DECLARED, "name": "a b"}], [{}]],
    )
    def test_declarations_that_make_no_sense(self, folder, field, declared):
        run_json = folder.path / "run.json"
        run_json.write_text(json.dumps({**json.loads(run_json.read_text()), field: [DECLARED]}))
        assert [metric.name for metric in getattr(folder.read_run(), field)] == ["mae"]
        run_json.write_text(json.dumps({**json.loads(run_json.read_text()), field: declared}))
        with pytest.raises(XbenchError, match=r"no readable run\.json"):
            folder.read_run()

    def test_fields_of_a_newer_xbench_may_be_missing_here(self, folder):
        folder.append(cell("a"))
        edit_last_line(folder, lambda document: document.pop("memory"))
        assert folder.read()[1] == [cell("a")]

    def test_unknown_status_is_no_record(self, folder):
        folder.append(cell("a"))
        edit_last_line(folder, lambda document: document.update(status="fine"))
        read_run, records = folder.read()
        assert records == []
        assert "cells.jsonl:1" in read_run.warnings[0]

    def test_records_of_a_newer_xbench_are_read_or_told(self, folder):
        for name, edit in {
            "a": {"schema_version": 3, "energy_joules": 12.5},
            "b": {"schema_version": 3, "status": "melted"},
            "c": {"schema_version": 3, "optimizer": "adam"},
        }.items():
            folder.append(cell(name))
            edit_last_line(folder, lambda document, edit=edit: document.update(edit))
        read_run, records = folder.read()
        assert [(record.cell_id, record.schema_version) for record in records] == [("a", 3)]
        assert [warning.partition(": ")[0][-1] for warning in read_run.warnings] == ["2", "3"]


class TestFind:
    @pytest.fixture
    def results(self, tmp_path):
        """Two suites; the older one has the latest run but one."""
        for name in ("old/20260101-120000", "old/20260301-120000", "new/20260201-120000"):
            path = tmp_path / name
            path.mkdir(parents=True)
            (path / "run.json").write_text(run("a", suite=path.parent.name).model_dump_json())
        return tmp_path

    @pytest.mark.parametrize(
        ("wanted", "found"),
        [
            (None, "old/20260301-120000"),
            ("old", "old/20260301-120000"),
            ("new", "new/20260201-120000"),
            ("old/20260101-120000", "old/20260101-120000"),
        ],
    )
    def test_latest_of_all_or_of_a_suite_or_by_name(self, results, wanted, found):
        assert find_run(results, wanted).path == results / found

    @pytest.mark.parametrize(
        ("wanted", "found"),
        [
            ("latest", "old/20260301-120000"),
            ("latest~1", "new/20260201-120000"),
            ("latest~2", "old/20260101-120000"),
            ("old~1", "old/20260101-120000"),
            ("20260201-120000", "new/20260201-120000"),
        ],
    )
    def test_earlier_ones_and_by_id(self, results, wanted, found):
        assert find_run(results, wanted).path == results / found

    def test_more_than_there_are(self, results):
        with pytest.raises(XbenchError, match=r"no run 'old~2' in .*: there are only 2 runs"):
            find_run(results, "old~2")

    def test_an_id_that_several_runs_have(self, results):
        path = results / "new" / "20260301-120000"
        path.mkdir()
        (path / "run.json").write_text("{}")
        with pytest.raises(XbenchError, match="several runs have the ID") as caught:
            find_run(results, "20260301-120000")
        assert "new/20260301-120000" in caught.value.hint

    def test_by_folder(self, results, monkeypatch):
        folder = results / "old/20260101-120000"
        assert find_run(results / "elsewhere", str(folder)).path == folder
        monkeypatch.chdir(results)
        assert find_run(results / "elsewhere", "new/20260201-120000").path.resolve() == (
            results / "new/20260201-120000"
        )

    def test_a_run_of_the_same_second_is_later(self, results):
        RunFolder.create(results, "", run("a", suite="new"))
        first = find_run(results, "new").path
        for number in ("2", "3"):
            path = first.parent / f"{first.name}-{number}"
            path.mkdir()
            (path / "run.json").write_text("{}")
            assert find_run(results, "new").path == path

    def test_many_runs_of_the_same_second(self, results):
        for number in range(2, 12):
            path = results / "new" / f"20260201-120000-{number}"
            path.mkdir()
            (path / "run.json").write_text("{}")
        assert find_run(results, "new").path.name == "20260201-120000-11"

    @pytest.mark.parametrize("wanted", ["ol", "nothing", "old/20260102-120000", "new/20260201-120000/traces"])
    def test_none_of_that_name(self, results, wanted):
        with pytest.raises(XbenchError, match=wanted) as caught:
            find_run(results, wanted)
        assert "xbench run" in caught.value.hint

    def test_folder_that_is_not_there(self, results):
        with pytest.raises(XbenchError, match="nowhere"):
            find_run(results, str(results / "nowhere"))

    def test_none_at_all(self, tmp_path):
        with pytest.raises(XbenchError, match="no run in"):
            find_run(tmp_path / "results", None)


class TestSoleRun:
    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        return tmp_path / "results" / "suite"

    def test_makes_the_folder(self, folder):
        with lock_suite_runs(folder):
            assert folder.is_dir()
        with lock_suite_runs(folder):
            pass

    def test_another_one_is_told_which_process_it_is(self, folder):
        with lock_suite_runs(folder):
            with pytest.raises(XbenchError) as caught, lock_suite_runs(folder):
                pass
            with lock_suite_runs(folder.with_name("other")):
                pass
        message = f"another run of this suite is using {folder} (process {os.getpid()})"
        assert caught.value.message == message
        assert caught.value.hint == "wait until it ends, or choose another folder with --out"

    @pytest.mark.parametrize("taken", ["results", "results/suite", "results/suite/.lock/x"])
    def test_what_cannot_be_written(self, tmp_path, folder, taken):
        """Something of that name is in the way."""
        (tmp_path / taken).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / taken).write_text("")
        with pytest.raises(XbenchError, match="cannot write results to") as caught, lock_suite_runs(folder):
            pass
        assert "--out" in caught.value.hint


class TestCheckWritable:
    def test_creates_nothing(self, tmp_path):
        check_writable(tmp_path)
        check_writable(tmp_path / "new" / "results")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("results", ["file", "file/results", "file/new/results"])
    def test_names_a_file_in_the_way(self, tmp_path, results):
        (tmp_path / "file").touch()
        with pytest.raises(XbenchError) as caught:
            check_writable(tmp_path / results)
        reason = f"{tmp_path / 'file'} is a file, not a folder"
        assert caught.value.message == f"cannot write results to {tmp_path / results}: {reason}"
        assert caught.value.hint == "choose another folder with --out"

    def test_a_name_that_is_too_long(self, tmp_path):
        with pytest.raises(XbenchError, match="cannot write results to") as caught:
            check_writable(tmp_path / ("x" * 300) / "results")
        assert "choose a shorter path" in caught.value.hint

    def test_a_full_disk(self, tmp_path, monkeypatch):
        def fail(**options):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(store.tempfile, "TemporaryFile", fail)
        with pytest.raises(XbenchError, match=r"cannot write results to .*: No space left on device"):
            check_writable(tmp_path / "new")


@pytest.mark.parametrize("results", ["file", "file/results"])
def test_runs_are_not_looked_for_in_a_file(tmp_path, results):
    (tmp_path / "file").touch()
    for find in (find_runs, lambda folder: find_run(folder, None)):
        with pytest.raises(XbenchError, match="file is a file, not a folder"):
            find(tmp_path / results)
