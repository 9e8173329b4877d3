"""`xbench export`: what TensorBoard reads back, and what MLflow is told.

MLflow is a stand-in with the few functions that are called, and a real one where it is installed.
"""

from __future__ import annotations

import math
import os
import posixpath
import re
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import pytest

from tests.cli.run_folders import write_run
from tests.report.report_samples import cell, failed, memory_pass, run
from xbench.errors import XbenchError
from xbench.records.schema import Component, EpochRecord, Times
from xbench.records.store import RunFolder
from xbench.records.traces import TraceRow
from xbench.report.export.contents import collect_cell
from xbench.report.export.mlflow import write_mlflow

STEPS = 3


@pytest.fixture
def folder(tmp_path):
    """A run with a cell that is done, one that failed, and one whose name could leave a folder."""
    record = cell(
        "sgd",
        0,
        0.8,
        optimizer=Component(name="sgd", params={"lr": 0.1, "betas": [0.9, 0.99]}),
        settings={"epochs": 2, "balance": None},
        time=Times(training_s=12.5),
        memory_pass=memory_pass(process=400),
        epochs=[EpochRecord(epoch=n, values={"train_loss": 1 / n, "test_loss": None}) for n in (1, 2)],
    )
    rows = [TraceRow(n, 1, 2.0 / n, 0.5, 1, 10**9 + n, None, None) for n in range(1, STEPS + 1)]
    others = [failed("adam", "oom", "killed"), cell("../../x", 0, 0.5)]
    written = write_run(tmp_path / "results", "20260101-120000", [])
    crc32 = written.write_trace(record.cell_id, rows)
    records = [record.model_copy(update={"trace_crc32": crc32}), *others]
    written.write_run(run(records))
    for each in records:
        written.append(each)
    return written


class TestTensorboard:
    @pytest.fixture
    def accumulators(self, xbench, folder, tmp_path):
        pytest.importorskip("tensorboard")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        done = xbench(tmp_path, "export", "latest", "--tensorboard", "events")
        assert done.returncode == 0, done.stderr
        assert "3 cells of results/tiny/20260101-120000 exported to events" in done.stderr
        found = {}
        for path in (tmp_path / "events").rglob("events.out.*"):
            found[path.parent.name.rpartition("-")[0]] = EventAccumulator(str(path.parent)).Reload()
        return found

    def test_each_cell_has_a_folder_below_the_target(self, accumulators):
        assert set(accumulators) == {"sgd-seed-0", "adam-seed-0", "-..-x-seed-0"}

    def test_traces_epochs_and_metrics_are_scalars(self, accumulators):
        events = accumulators["sgd-seed-0"]
        assert [(event.step, event.value) for event in events.Scalars("step/loss")] == [
            (n, pytest.approx(2 / n)) for n in range(1, STEPS + 1)
        ]
        assert {"step/wall_s", "step/host_peak_bytes"} <= set(events.Tags()["scalars"])
        assert "step/device_peak_bytes" not in events.Tags()["scalars"]
        assert [event.step for event in events.Scalars("epoch/train_loss")] == [1, 2]
        assert events.Scalars("final/test_accuracy")[0].value == pytest.approx(0.8)
        assert events.Scalars("final/training_s")[0].value == 12.5
        assert events.Scalars("final/needed_bytes")[0].value == 4e8

    def test_names_that_would_become_the_same_or_too_long_have_folders_of_their_own(self, tmp_path):
        pytest.importorskip("tensorboard")
        from xbench.report.export.tensorboard import write_tensorboard

        names = ["語" * 200, "語" * 200 + "a", "a/b", "a-b", "a:b", "...", "x" * 300, "x" * 301]
        records = [cell(column, experiment=name) for name in names for column in names]
        shared = [records[0].model_copy(update={"column": name}) for name in ("one", "one?")]
        folder = RunFolder(tmp_path / "run")
        cells = [collect_cell(folder, record)[0] for record in (*records, *shared)]
        assert write_tensorboard(cells, tmp_path / "events") == len(cells)
        files = list((tmp_path / "events").rglob("events.out.*"))
        assert len({path.parent for path in files}) == len(files) == len(cells)
        assert len(list((tmp_path / "events").iterdir())) == len(names)
        assert max(len(os.fsencode(part)) for path in files for part in path.parent.parts) < 144

    def test_settings_are_hyperparameters(self, accumulators):
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

        content = accumulators["sgd-seed-0"].summary_metadata
        data = content["_hparams_/session_start_info"].plugin_data.content
        parameters = HParamsPluginData.FromString(data).session_start_info.hparams
        assert parameters["optimizer.lr"].number_value == 0.1
        assert parameters["optimizer.betas"].string_value == "[0.9, 0.99]"
        assert parameters["epochs"].number_value == 2
        assert parameters["train_size"].number_value == 1400

    def test_a_folder_with_content_is_refused(self, xbench, accumulators, tmp_path):
        done = xbench(tmp_path, "export", "--tensorboard", "events")
        assert done.returncode == 2
        assert "events exists already" in done.stderr

    def test_a_damaged_trace_is_named_and_the_rest_exported(self, xbench, folder, tmp_path):
        pytest.importorskip("tensorboard")
        (path,) = (folder.path / "traces").iterdir()
        path.write_bytes(b"nothing")
        done = xbench(tmp_path, "export", "--tensorboard", "events")
        assert done.returncode == 0
        assert "the trace of first, sgd, seed 0 cannot be read" in done.stderr
        assert len(list((tmp_path / "events").rglob("events.out.*"))) == 3


def test_a_target_is_needed(xbench, folder, tmp_path):
    for flags in ([], ["--tensorboard", "a", "--mlflow", "b"]):
        done = xbench(tmp_path, "export", *flags)
        assert done.returncode == 2
        assert "one target is needed" in done.stderr


def test_missing_packages_are_named(folder, monkeypatch, tmp_path):
    from xbench.report.export.tensorboard import write_tensorboard

    for name in ("mlflow", "tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
        for module in [key for key in sys.modules if key.startswith(f"{name}.")]:
            monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(XbenchError, match="mlflow is not installed") as caught:
        write_mlflow([], "uri", "tiny", "1")
    assert "pip install mlflow-skinny" in caught.value.hint
    with pytest.raises(XbenchError, match="tensorboard is not installed") as caught:
        write_tensorboard([], tmp_path / "events")
    assert "pip install tensorboard" in caught.value.hint


@dataclass
class FakeServer:
    """Keeps what a client logs."""

    runs: list[dict] = field(default_factory=list)
    experiments: dict[str, str] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    most_batches: int = 1000


@pytest.fixture
def server(monkeypatch) -> FakeServer:
    """A stand-in for mlflow, with MLflow's limits on a batch."""
    kept = FakeServer()

    class MlflowException(Exception):
        pass

    class MlflowClient:
        def __init__(self, tracking_uri):
            if tracking_uri == "http://nowhere":
                raise MlflowException("no connection")

        def get_experiment_by_name(self, name):
            if name not in kept.experiments:
                return None
            stage = "deleted" if name in kept.deleted else "active"
            return SimpleNamespace(experiment_id=kept.experiments[name], lifecycle_stage=stage)

        def create_experiment(self, name):
            kept.experiments[name] = str(len(kept.experiments))
            return kept.experiments[name]

        def create_run(self, experiment_id, start_time=None, tags=None, run_name=None):
            kept.runs.append({"name": run_name, "tags": tags, "params": {}, "metrics": []})
            return SimpleNamespace(info=SimpleNamespace(run_id=len(kept.runs) - 1))

        def log_batch(self, run_id, metrics=(), params=(), tags=()):
            assert len(metrics) <= 1000
            assert len(params) <= 100
            kept.most_batches -= 1
            if kept.most_batches < 0:
                raise MlflowException("the disk is full")
            kept.runs[run_id]["params"] |= {param.key: param.value for param in params}
            kept.runs[run_id]["metrics"] += [(each.key, each.value, each.step) for each in metrics]

        def set_terminated(self, run_id, status=None, end_time=None):
            kept.runs[run_id]["status"] = status

    entities = {
        "Metric": lambda key, value, timestamp, step: SimpleNamespace(key=key, value=value, step=step),
        "Param": lambda key, value: SimpleNamespace(key=key, value=value),
    }
    modules = {
        "mlflow": {},
        "mlflow.entities": entities,
        "mlflow.exceptions": {"MlflowException": MlflowException},
        "mlflow.tracking": {"MlflowClient": MlflowClient},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return kept


class TestMlflow:
    def export(self, folder, uri="uri"):
        _, records = folder.read()
        cells = [collect_cell(folder, record)[0] for record in records]
        return write_mlflow(cells, uri, "tiny", folder.run_id)

    def test_each_cell_is_a_run(self, folder, server):
        assert self.export(folder) == 3
        assert self.export(folder) == 3
        assert list(server.experiments) == ["tiny"]
        assert [run["status"] for run in server.runs[:3]] == ["FINISHED", "FAILED", "FINISHED"]
        assert server.runs[0]["name"] == "first, sgd, seed 0"
        assert server.runs[1]["tags"]["xbench.status"] == "oom"

    def test_params_and_metrics(self, folder, server):
        self.export(folder)
        run = server.runs[0]
        assert run["params"]["optimizer.lr"] == "0.1"
        assert run["params"]["train_size"] == "1400"
        assert ("test_accuracy", 0.8, 0) in run["metrics"]
        assert ("epoch/train_loss", 0.5, 2) in run["metrics"]
        assert ("step/loss", 2.0, 1) in run["metrics"]

    def test_a_long_trace_goes_in_batches(self, folder, server):
        _, records = folder.read()
        rows = [TraceRow(n, 1, 1.0, 0.5, 1, 1, None, None) for n in range(1, 1201)]
        crc32 = folder.write_trace(records[0].cell_id, rows)
        exported, problem = collect_cell(folder, records[0].model_copy(update={"trace_crc32": crc32}))
        assert problem == ""
        write_mlflow([exported], "uri", "tiny", "1")
        assert sum(name == "step/loss" for name, *_ in server.runs[0]["metrics"]) == 1200

    def test_names_are_allowed_and_stay_different(self, folder, server):
        _, records = folder.read()
        params = {"größe": 1, "gr__e": 2, "x" * 300: 3, "a//b": 4, "../b": 5, "": 6}
        record = records[0].model_copy(update={"optimizer": Component(name="sgd", params=params)})
        write_mlflow([collect_cell(folder, record)[0]], "uri", "tiny", "1")
        given = {
            name.removeprefix("optimizer."): value
            for name, value in server.runs[0]["params"].items()
            if name.startswith("optimizer.")
        }
        assert sorted(given.values()) == ["1", "2", "3", "4", "5", "6"]
        for name in server.runs[0]["params"]:
            assert re.fullmatch(r"[\w./ -]{1,250}", name, re.ASCII)
            assert name == posixpath.normpath(name) and not name.startswith(("/", ".."))

    def test_a_run_that_cannot_be_written_whole_is_no_longer_running(self, folder, server):
        server.most_batches = 1
        with pytest.raises(XbenchError, match="the disk is full"):
            self.export(folder)
        assert [run["status"] for run in server.runs] == ["KILLED"]

    def test_a_deleted_experiment(self, folder, server):
        self.export(folder)
        server.deleted.add("tiny")
        with pytest.raises(XbenchError, match="the experiment 'tiny' is deleted"):
            self.export(folder)

    def test_a_server_that_fails(self, folder, server):
        with pytest.raises(XbenchError, match="MLflow at http://nowhere failed: no connection"):
            self.export(folder, "http://nowhere")


@pytest.mark.skipif(not find_spec("mlflow"), reason="mlflow is not installed")
@pytest.mark.parametrize("scheme", ["file", "sqlite"])
def test_a_real_mlflow_reads_back_what_was_written(folder, tmp_path, monkeypatch, scheme):
    if scheme == "sqlite":
        pytest.importorskip("alembic", reason="mlflow-skinny writes to no database")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.tracking import MlflowClient

    uri = {"file": f"file:{tmp_path}/mlruns", "sqlite": f"sqlite:///{tmp_path}/mlflow.db"}[scheme]
    _, records = folder.read()
    rows = [TraceRow(n, 1, 1 / n if n < 1200 else math.nan, 0.5, 1, 1, None, None) for n in range(1, 1301)]
    crc32 = folder.write_trace(records[0].cell_id, rows)
    records[0] = records[0].model_copy(update={"trace_crc32": crc32})
    assert write_mlflow([collect_cell(folder, r)[0] for r in records], uri, "tiny", "1") == 3
    client = MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    found = {run.info.run_name: run for run in runs}
    assert {name: run.info.status for name, run in found.items()} == {
        "first, sgd, seed 0": "FINISHED",
        "first, adam, seed 0": "FAILED",
        "first, ../../x, seed 0": "FINISHED",
    }
    sgd = found["first, sgd, seed 0"]
    assert sgd.data.params["optimizer.betas"] == "[0.9, 0.99]"
    assert sgd.data.metrics["test_accuracy"] == 0.8
    assert sgd.data.tags["xbench.cell"] == records[0].cell_id
    history = client.get_metric_history(sgd.info.run_id, "step/loss")
    losses = {metric.step: metric.value for metric in history}
    assert len(losses) == 1300 and losses[4] == 0.25 and math.isnan(losses[1300])
