"""The page on the memory of optimizers says what the records say, and the records what theory says."""

from __future__ import annotations

import importlib.util
import sys
import tomllib
from pathlib import Path

import pytest

from tests.report.report_samples import cell, failed, id_of, run
from xbench.components.registry import registrations
from xbench.records.memory import MemoryPassRecord, MemoryRecord
from xbench.records.schema import CellKey, CellRecord, ExperimentRecord, Times
from xbench.records.store import RunFolder

DOCS = Path(__file__).parents[2] / "docs"
VECTOR = 8_000_000
VERSIONS = {"xbench": "1.0", "torch": "2.15.0", "python": "3.12.1"}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("optimizer_memory", DOCS / "optimizer_memory.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def measured(column: str, state: float, theory: float | None, peak: float, **fields) -> CellRecord:
    """A cell whose optimizer takes these vectors."""
    sizes = dict.fromkeys(
        [f"{name}_bytes" for name in ("process", "data", "activations", "keeping", "optimizer_work")], 0
    )
    memory_pass = MemoryPassRecord(
        steps=3,
        malloc="exact",
        peak_phase="update",
        peak_bytes=5 * VECTOR,
        parameters_bytes=VECTOR,
        gradients_bytes=VECTOR,
        optimizer_state_bytes=0,
        final_state_bytes=round(state * VECTOR),
        optimizer_peak_bytes=round(peak * VECTOR),
        **sizes,
    )
    values = {
        "memory": MemoryRecord(expected_state_vectors=theory),
        "memory_pass": memory_pass,
        "steps": 12,
        "closures": 12,
        "device": {"threads": 1, "cores": 2},
    }
    return cell(column, **{**values, **fields})


def rows_of(text: str) -> dict[str, list[str]]:
    """The rows of all tables by their first cells."""
    rows = [
        [one.strip() for one in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| `")
    ]
    return {row[0].strip("`"): row[1:] for row in rows}


class TestTables:
    @pytest.fixture
    def text(self, script, tmp_path):
        sgd = measured("sgd", 0, 0, 1.004, time=Times(step_ms_median=5.0))
        records = [
            measured("adam", 2, 2, 3.25, time=Times(step_ms_median=12.5)),
            sgd,
            measured("lbfgs", 22, 22, 28, time=Times(step_ms_median=650.0), closures=234),
            measured("plugin/odd", 1.5, 2, 2.9, experiment="second", status="diverged", reason="NaN"),
            failed("broken", "error", "RuntimeError:\n no", experiment="second"),
        ]
        plan = run(
            records,
            ExperimentRecord(name="first", title="Of torch"),
            ExperimentRecord(name="second", title="Of a plugin"),
            versions=VERSIONS,
        )
        # The second experiment shares the cell of SGD.
        shared = CellKey(cell_id=sgd.cell_id, experiment="second", column="sgd", seed=0)
        plan = plan.model_copy(update={"cells": [*plan.cells, shared]})
        checks = {id_of("first", "adam", 0): {"resume": ("yes", ""), "repeats": ("no", "it differs")}}
        kept = script.Kept(
            tmp_path / "checks.json", checks, {"plugin/none": "cannot be used"}, {"plugin": "3.0"}
        )
        return script.write_tables(plan, records, kept)

    def test_have_the_values_of_the_records(self, text):
        assert rows_of(text) == {
            "sgd": ["0.00", "0.00", "1.00", "1.0", "1", "", ""],
            "adam": ["2.00", "2.00", "3.25", "2.5", "1", "yes", "no"],
            "lbfgs": ["22.00", "22.00", "28.00", "130", "19.5", "", ""],
            "plugin/odd` (diverged)": ["**1.50**", "2.00", "2.90", "", "1", "", ""],
        }

    def test_have_a_section_for_each_experiment(self, text):
        torchs, plugins = text.split("### Of torch")[1].split("### Of a plugin")
        assert list(rows_of(torchs)) == ["sgd", "adam", "lbfgs"]
        assert list(rows_of(plugins)) == ["plugin/odd` (diverged)"]

    def test_say_why_an_optimizer_is_in_none(self, text):
        assert text.split("### Not measured\n\n")[1].splitlines() == [
            "- `broken`: error: RuntimeError: no",
            "- `plugin/none`: cannot be used",
        ]

    def test_say_why_an_optimizer_does_not_repeat(self, text):
        section = text.split("### Why some do not resume or repeat\n\n")[1]
        assert section.startswith("- `adam`: it differs\n\n")

    def test_say_what_was_used(self, text):
        first = text.splitlines()[0]
        for fact in (
            "2026-01-31",
            "torch 2.15.0",
            "plugin 3.0",
            "some processor",
            "1 of 2 cores",
            "8.00 MB",
            "5.0 ms",
        ):
            assert fact in first


SUITE = {"experiment": [{"optimizer": [{"name": ["sgd", "a/b"]}, {"name": "lion", "lr": 1}]}]}


def test_a_reason_is_a_short_line(script):
    assert script.tidy("\x1b[1mno\x1b[0m:\n  why") == "no: why"
    assert script.tidy("x" * 1000) == "x" * script.MAX_REASON_CHARS + "..."


class TestMistakes:
    def test_name_their_optimizers(self, script):
        culprit = script.name_culprit(SUITE, "experiment[0].optimizer[0].name[1]: unknown optimizer 'a/b'.")
        assert culprit == ("a/b", "unknown optimizer 'a/b'.")
        assert script.name_culprit(SUITE, "experiment[0].optimizer[1].lr: 'lion': no")[0] == "lion"
        complaint = "experiment[0].optimizer[0]: optimizer 'a/b': it raised ValueError: no"
        assert script.name_culprit(SUITE, complaint) == ("a/b", "it raised ValueError: no")

    @pytest.mark.parametrize(
        "message", ["experiment[0].model: what", "experiment[0].optimizer[0].lr: which of both"]
    )
    def test_of_anything_else_name_none(self, script, message):
        assert script.name_culprit(SUITE, message) is None

    def test_leave_the_others(self, script):
        assert script.drop(SUITE, ["a/b"])["experiment"][0]["optimizer"] == [
            {"name": "sgd"},
            {"name": "lion", "lr": 1},
        ]
        assert script.drop(SUITE, ["a/b", "lion", "sgd"])["experiment"] == []


def test_what_the_page_shows_is_what_theory_says(script, tmp_path):
    """The suite with a small model, some of its optimizers, and two that cannot be used."""
    suite = tomllib.loads(script.SUITE.read_text(encoding="utf-8"))
    torchs = suite["experiment"][0] | {"model": {"name": "mlp", "hidden": [256]}, "train_size": 64}
    torchs["optimizer"] = [
        {"name": ["sgd", "adam", "absent/one", "absent/two"]},
        {"name": "rmsprop", "alpha": "high"},
        *(table for table in torchs["optimizer"] if isinstance(table["name"], str)),
    ]
    folder, left_out = script.measure({**suite, "experiment": [torchs]}, tmp_path)
    assert left_out["absent/..."] == "its plugin is not installed"
    assert "alpha" in left_out["rmsprop"]
    rows = rows_of(script.write_tables(*RunFolder(folder).read(), script.Kept.of(folder)))
    assert {name: row[:2] for name, row in rows.items()} == {
        "sgd": ["0.00", "0.00"],
        "sgd-momentum": ["1.00", "1.00"],
        "adam": ["2.00", "2.00"],
        "lbfgs": ["22.00", "22.00"],
    }
    assert float(rows["lbfgs"][4]) > 1


def test_every_optimizer_of_torch_is_in_the_suite(script):
    suite = tomllib.loads(script.SUITE.read_text(encoding="utf-8"))
    own = {
        name
        for name, found in registrations("optimizer").items()
        if found.distributions[0].startswith("xbench ")
    }
    assert set(script.list_names(suite["experiment"][0])) == own
