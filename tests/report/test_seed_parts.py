"""Tables of seeds whose parts vary apart."""

from __future__ import annotations

import pytest

from tests.report.report_samples import cell, run
from xbench.records.schema import CellKey
from xbench.report.comparison import comparisons
from xbench.report.declared_cells import match_cells
from xbench.report.run_comparison import NamedRun, compare_runs


def seeded(column: str, seed: int, accuracy: float, *parts: int):
    return cell(
        column, seed, accuracy, seed_parts=dict(zip(("weights", "split", "order"), parts, strict=True))
    )


def lines_of(*records) -> tuple[str, ...]:
    (comparison,) = comparisons(run(records), list(records))
    return comparison.data


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ([(0, 0, 0), (0, 0, 1), (0, 0, 2)], "n = 3 orders of batches; the same initial weights and split"),
        ([(0, 0, 0), (1, 0, 0)], "n = 2 initial weights; the same split and order of batches"),
        (
            [(w, 0, o) for w in range(2) for o in range(3)],
            "n = 6 seeds: combinations of 2 initial weights and 3 orders of batches; the same split",
        ),
    ],
)
def test_a_table_says_what_varies(parts, line):
    assert line in lines_of(*(seeded("sgd", seed, 0.8, *each) for seed, each in enumerate(parts)))


def test_ordinary_seeds_are_not_mentioned():
    assert not any("n = " in line for line in lines_of(cell("sgd", 0, 0.8), cell("sgd", 1, 0.8)))


def test_a_cell_that_was_taken_over_gets_the_number_of_its_seed():
    record = seeded("sgd", 4, 0.8, 4, 4, 4)
    key = CellKey(cell_id=record.cell_id, experiment="first", column="sgd", seed=0)
    ((_, found),) = match_cells(run([record]).model_copy(update={"cells": [key]}), [record])
    assert (found.seed, found.seed_parts.key) == (0, (4, 4, 4))


def test_intervals_allow_for_seeds_that_share_a_part():
    parts = [(w, 0, o) for w in range(2) for o in range(3)]
    accuracies = [0.80, 0.81, 0.82, 0.90, 0.91, 0.92]
    crossed = [seeded("sgd", s, a, *p) for s, (a, p) in enumerate(zip(accuracies, parts, strict=True))]
    together = [cell("sgd", s, a) for s, a in enumerate(accuracies)]
    widths = [
        comparisons(run(r), r)[0].columns[0].figures["test_accuracy"].half_width for r in (crossed, together)
    ]
    assert widths[0] > 3 * widths[1]


class TestComparedRuns:
    def compare(self, before, after):
        runs = [
            NamedRun(name, name, run(records), records) for name, records in (("A", before), ("B", after))
        ]
        (experiment,) = compare_runs(*runs).experiments
        return experiment

    def test_seeds_that_differ_in_a_part_are_not_paired(self):
        before = [seeded("sgd", 0, 0.8, 0, 0, 0), seeded("sgd", 1, 0.8, 0, 0, 1)]
        after = [seeded("sgd", 0, 0.9, 0, 0, 0), seeded("sgd", 1, 0.7, 1, 0, 0)]
        experiment = self.compare(before, after)
        (change,) = [change for change in experiment.changes if change.row.key == "test_accuracy"]
        assert change.effect.seeds == (0,)
        assert experiment.unlike == {"sgd": (1,)}

    def test_runs_without_a_common_seed_are_not_compared(self):
        experiment = self.compare([seeded("sgd", 0, 0.8, 0, 0, 1)], [seeded("sgd", 0, 0.9, 0, 0, 2)])
        assert {change.reason for change in experiment.changes if change.before} == {"the runs share no seed"}
