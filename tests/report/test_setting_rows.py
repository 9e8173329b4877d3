"""Rows of settings: which there are, and what stands in them."""

from __future__ import annotations

import pytest

from tests.report.report_samples import cell, failed, run
from xbench.records.memory import MemoryRecord
from xbench.records.schema import CellRecord, Component, ExperimentRecord
from xbench.report.breakdown import MEMORY_ROWS
from xbench.report.comparison import View, comparisons

DEFAULTS = {"dtype": "float32", "class_weights": {}, "epochs": 1, "threads": None}
DEFAULTS |= {"deterministic": False, "tf32": False}


def rows(*records: CellRecord, compared=None) -> dict[str, list[str]]:
    """Rows that are not of figures."""
    (comparison,) = comparisons(run(records), list(records), View(rows=compared))
    return {title: cells for title, *cells in comparison.table.rows if title not in ("steps", "closures")}


def of(column: str, seed: int = 0, **settings) -> CellRecord:
    return cell(column, seed, settings=DEFAULTS | settings)


def sized(seed: int, column: str = "sgd", **ran) -> CellRecord:
    return cell(
        column, seed, ran={"train_size": 90, "batch_size": 90, **ran}, requested={"micro_batch": "full"}
    )


SIZES = {"examples per epoch": ["1,400"] * 2, "batch": ["5"] * 2, "micro-batch": ["5"] * 2}


class TestSettings:
    def test_those_that_are_alike_take_no_row(self):
        assert rows(of("sgd"), of("adam")) == SIZES

    @pytest.mark.parametrize(
        ("key", "value", "shown"),
        [
            ("dtype", "float64", ["float32", "float64"]),
            ("epochs", 1200, ["1", "1,200"]),
            ("deterministic", True, ["no", "yes"]),
            ("tf32", True, ["no", "yes"]),
            ("class_weights", {"b": 0.5, "a": 2.0}, ["all 1", "a=2, b=0.5"]),
            ("class_weights", {"b": 1.0, "a": 2.0}, ["all 1", "a=2"]),
        ],
    )
    def test_one_that_differs(self, key, value, shown):
        found = rows(of("sgd"), of("adam", **{key: value}))
        assert found == SIZES | {key.replace("_", " "): shown}

    def test_weights_of_one_are_no_weights(self):
        assert rows(of("sgd"), of("adam", class_weights={"a": 1.0})) == SIZES

    def test_floats_that_look_alike_are_told_apart(self):
        found = rows(of("sgd", validation=0.1234567), of("adam", validation=0.1234568))
        assert found["validation"] == ["0.1234567", "0.1234568"]

    def test_one_of_a_newer_xbench(self):
        found = rows(of("sgd", warmup_steps=None), of("adam", warmup_steps=7))
        assert found["warmup steps"] == ["default", "7"]

    def test_titles_say_it_already(self):
        assert rows(of("sgd epochs=1"), of("sgd epochs=2", epochs=2)) == SIZES

    def test_titles_of_some_columns_say_it(self):
        found = rows(of("sgd epochs=1"), of("sgd epochs=2", epochs=2), of("adam", epochs=3))
        assert found["epochs"] == ["1", "2", "3"]

    def test_threads_are_those_that_ran(self):
        devices = ({"name": "a processor", "threads": threads} for threads in (2, 4))
        found = rows(
            *(cell(name, settings=DEFAULTS, device=d) for name, d in zip("ab", devices, strict=True))
        )
        assert found["threads"] == ["2", "4"]

    def test_records_of_older_runs(self):
        assert rows(cell("sgd", device={}), cell("adam", device={})) == SIZES

    def test_a_cell_that_failed_has_settings(self):
        found = rows(of("sgd"), failed("adam", "oom", "too much", settings=DEFAULTS | {"dtype": "float64"}))
        assert found["dtype"] == ["float32", "float64"]
        assert found["batch"] == ["5", "-"]

    def test_they_stand_beside_memory_too(self):
        found = rows(of("sgd"), of("adam", dtype="float64"), compared=MEMORY_ROWS)
        assert found == {"dtype": ["float32", "float64"]}

    def test_seeds_beyond_the_first_few_are_counted(self):
        found = rows(*(of("sgd", seed, dtype="float64" if seed % 4 else "float32") for seed in range(16)))
        assert found["dtype"] == [
            "float32 (seeds 0, 4 and 2 more), float64 (seeds 1 to 3, 5 to 7 and 6 more)",
        ]

    def test_values_beyond_the_first_few_are_counted(self):
        found = rows(*(of("sgd", seed, note=f"n{seed}") for seed in range(5)))
        assert found["note"] == ["n0 (seed 0), n1 (seed 1), n2 (seed 2) and 2 other values"]


class TestSizes:
    def test_those_that_differ_between_seeds(self):
        found = rows(*(sized(seed, micro_batch=size) for seed, size in enumerate((16, 8, 16))))
        assert found["micro-batch"] == ["16 (seeds 0, 2), 8 (seed 1)"]
        assert found["batch"] == ["90"]

    def test_many_that_differ_are_a_range(self):
        found = rows(*(sized(seed, train_size=1000 + 7 * seed) for seed in (3, 0, 1, 2)))
        assert found["examples per epoch"] == ["1,000 to 1,021, by seed"]

    def test_a_seed_that_did_not_run_has_none(self):
        found = rows(sized(0, micro_batch=16), failed("sgd", "error", "broken", seed=1))
        assert found["micro-batch"] == ["16"]

    def test_history_is_shown_where_it_was_adapted(self):
        asked = {"requested": {"history_size": 10}}
        assert "history" not in rows(cell("lbfgs", ran={"history_size": 10}, **asked))
        found = rows(cell("lbfgs", ran={"history_size": 4}, fitted={"history_size": "adapted"}, **asked))
        assert found["history"] == ["4"]

    def test_history_of_titles_is_not_repeated(self):
        cells = [
            cell(f"lbfgs history_size={n}", ran={"history_size": n}, requested={"history_size": n})
            for n in (5, 10)
        ]
        assert "history" not in rows(*cells)

    @pytest.mark.parametrize("damaged", ["full", True, 2**70, [1], None])
    def test_what_is_not_a_size_is_not_shown(self, damaged):
        assert rows(cell("sgd", ran={"batch_size": damaged})) == {}

    def test_of_a_reference(self):
        records = [cell("sgd")]
        experiment = ExperimentRecord(
            name="first",
            title="First",
            reference={"sgd": {"batch_size": 5, "dtype": 1}},
            reference_name="2021",
        )
        (comparison,) = comparisons(run(records, experiment), records)
        assert ("batch", "5") in comparison.reference.rows


def test_malloc_of_the_timed_runs():
    memories = [MemoryRecord(malloc=malloc) for malloc in ("fast", "exact", None)]
    found = rows(*(cell(name, memory=memory) for name, memory in zip("abc", memories, strict=True)))
    assert found["malloc"] == ["fast", "exact", "-"]


class TestAllSettings:
    """What `xbench show --settings` prints: those of components too, whether they differ or not."""

    def table(self, *records: CellRecord, **view) -> dict[str, list[str]]:
        (comparison,) = comparisons(run(records), list(records), View(**view))
        return {title.strip(): cells for title, *cells in comparison.table.rows}

    @pytest.fixture
    def records(self):
        def made(column, **params):
            optimizer = Component(name=column.split()[0], params=params)
            return cell(column, accuracy=0.5, settings=DEFAULTS, optimizer=optimizer)

        return made("sgd", lr=0.1), made("muon", lr=None, rest={"name": "adamw", "lr": 0.01})

    def test_of_each_column(self, records):
        table = self.table(*records, rows=(), has_all_settings=True)
        assert table["optimizer"] == ["sgd", "muon"]
        assert table["lr"] == ["0.1", "default"]
        assert table["rest"] == ["-", "lr=0.01, name='adamw'"]
        assert table["model"] == ["report-cnn", "report-cnn"]
        assert table["epochs"] == ["1", "1"]
        assert table["batch"] == ["5", "5"]
        assert "test accuracy" not in table

    def test_some_beside_figures(self, records):
        table = self.table(*records, keys=("test_accuracy", "optimizer.lr"))
        assert table == {"test accuracy": ["0.500", "0.500"], "lr": ["0.1", "default"]}

    def test_the_main_table_has_none_of_them(self, records):
        assert not self.table(*records).keys() & {"optimizer", "lr", "rest", "epochs"}
