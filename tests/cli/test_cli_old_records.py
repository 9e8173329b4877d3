"""A suite is run again beside runs that earlier versions of xbench left: what is the same is taken over."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # two real runs

FIXTURES = Path(__file__).parents[1] / "records" / "fixtures"
# Each old run, and the time after which its folder is named.
OLD = {"before-memory-passes": "20260101-120000", "memory-passes": "20260102-120000"}

# What the identity of a cell is taken from changes with every version. As if it had not, these cells of the
# old runs get today's ids: (old run, experiment, column, seed).
SAME = [
    *(
        ("before-memory-passes", "optimizers", column, 0)
        for column in ("sgd", "too-fast", "adam", "lbfgs", "muon")
    ),
    *(("memory-passes", "optimizers", column, 1) for column in ("too-fast", "adam", "lbfgs", "muon")),
    ("before-memory-passes", "wall", "adam", 0),
    ("memory-passes", "wall", "adam", 1),
]
TAKEN = {place for place in SAME if place[2] not in ("too-fast", "muon")}  # failed and skipped ones are run

Place = tuple[str, str, int]


class Beside:
    """A run of the suite beside the old ones.

    Attributes:
        old: content of every file of the old runs, before and after it.
        experiments: what it printed of each.
        new: its own folder.
    """

    def __init__(self, xbench, folder: Path):
        results = folder / "results" / "small"
        self.old = [_content(results)]
        self.done = xbench(folder, "run", "suite.toml", "--format", "json")
        self.experiments = json.loads(self.done.stdout)["experiments"]
        (self.new,) = (path for path in results.glob("[!.]*") if path.name not in OLD.values())
        self.old.append(_content(results))

    def lines(self) -> dict[Place, dict[str, Any]]:
        text = (self.new / "cells.jsonl").read_text()
        return {_place(line): line for line in map(json.loads, text.splitlines())}


def _place(cell: dict[str, Any]) -> Place:
    return cell["experiment"], cell["column"], cell["seed"]


def _content(results: Path) -> dict[Path, bytes]:
    files = (path for name in OLD.values() for path in (results / name).rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files}


def _old_runs(folder: Path, ids: dict[Place, str]) -> None:
    """Put the old runs into a folder, with these ids in place of their own for the cells of `SAME`."""
    shutil.copy(FIXTURES / "memory-passes" / "suite.toml", folder)
    for old, name in OLD.items():
        run = folder / "results" / "small" / name
        shutil.copytree(FIXTURES / old, run)
        places = {(experiment, column, seed) for of, experiment, column, seed in SAME if of == old}
        cells = json.loads((run / "run.json").read_text())["cells"]
        for cell in cells:
            if _place(cell) in places & ids.keys():
                for path in (run / "run.json", run / "cells.jsonl"):
                    path.write_text(path.read_text().replace(cell["cell_id"], ids[_place(cell)]))


@pytest.fixture(scope="module")
def first(xbench, tmp_path_factory) -> Beside:
    """A run that has no cell in common with the old ones."""
    folder = tmp_path_factory.mktemp("first")
    _old_runs(folder, {})
    return Beside(xbench, folder)


@pytest.fixture(scope="module")
def second(xbench, first, tmp_path_factory) -> Beside:
    """A run that has those of `SAME` in common with them."""
    folder = tmp_path_factory.mktemp("second")
    _old_runs(folder, {place: line["cell_id"] for place, line in first.lines().items()})
    return Beside(xbench, folder)


def test_without_a_cell_in_common_all_are_run(first):
    assert first.done.returncode == 1  # "too-fast" diverges
    assert len(first.lines()) == 12
    assert {line["reused_from"] for line in first.lines().values()} == {""}


def test_cells_in_common_are_taken_over_and_the_rest_is_run(second):
    assert second.done.returncode == 1
    assert f"{len(TAKEN)} of 12 cells already have results" in second.done.stderr
    found = {place: line["reused_from"] for place, line in second.lines().items()}
    assert len(found) == 12
    taken = {(experiment, column, seed): OLD[of] for of, experiment, column, seed in TAKEN}
    assert found == {place: taken.get(place, "") for place in found}


def test_the_old_runs_are_as_they_were(first, second):
    for run in (first, second):
        before, after = run.old
        assert len(before) == 6
        assert after == before


def test_what_was_taken_over_is_as_it_was(second):
    cells = [cell for experiment in second.experiments for cell in experiment["cells"]]
    shown = {_place(cell): cell for cell in cells}
    for of, *place in TAKEN:
        text = (FIXTURES / of / "cells.jsonl").read_text()
        (old,) = (line for line in map(json.loads, text.splitlines()) if _place(line) == tuple(place))
        cell = shown[tuple(place)]
        assert (cell["metrics"], cell["status"]) == (old["metrics"], old["status"])
        assert [{"epoch": epoch["epoch"], **epoch["values"]} for epoch in cell["epochs"]] == old["epochs"]


def test_all_that_is_written_is_of_one_version(second):
    run = json.loads((second.new / "run.json").read_text())
    assert {run["schema_version"], *(line["schema_version"] for line in second.lines().values())} == {2}
    assert [metric["name"] for metric in run["metrics"]] == list(
        second.lines()["optimizers", "sgd", 0]["metrics"]
    )


def test_its_table_has_the_old_and_the_new(second):
    columns = {column["column"]: column for column in second.experiments[0]["columns"]}
    assert all(
        len(columns[name]["figures"]["test_accuracy"]["values"]) == 2 for name in ("sgd", "adam", "lbfgs")
    )
    notes = "\n".join(second.experiments[0]["notes"])
    assert all(f"reused from run {name}" in notes for name in OLD.values())
