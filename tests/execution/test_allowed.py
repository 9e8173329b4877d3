"""A suite's own images and what a command prints are not code, wherever they lie."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cell_samples import cell_of
from tests.run_samples import suite_of
from xbench.components.code import own_stamp
from xbench.components.code_files import ImportDirs, code_files, place_of
from xbench.errors import XbenchError
from xbench.execution.child import train
from xbench.execution.history import warn_of_changes
from xbench.planning.plan import allowed_folders


def suite_with(dataset: str):
    return suite_of(
        f"""
suite.name = "sample"
[[experiment]]
name = "exp"
model = "mine:net"
dataset = {dataset}
optimizer = "sgd"
"""
    )


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    for name in ("mine.py", "one/a/1.png", "two/a/1.png", "report/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def left(folder: Path, dataset: str) -> set[str]:
    allowed = allowed_folders([str(folder)], suite_with(dataset))
    (root,) = allowed
    return {file.name for file in code_files(Path(root), allowed.left_out)}


ALL = {"mine.py", "one/a/1.png", "two/a/1.png", "report/notes.txt"}


@pytest.mark.parametrize(
    ("dataset", "gone"),
    [
        ('{ name = "folder", root = "one" }', {"one/a/1.png"}),
        ('{ name = "folder", params = { root = "./one/" } }', {"one/a/1.png"}),
        ('{ name = "folder", root = ["one", "two"] }', {"one/a/1.png", "two/a/1.png"}),
        ('["chest-xray", { name = "folder", root = "two/a" }]', {"two/a/1.png"}),
        ('{ name = "chest-xray", fallback = { name = "folder", root = "one" } }', {"one/a/1.png"}),
        ('{ name = "chest-xray", split = "report" }', set()),
        ('{ name = "folder", root = "nowhere" }', set()),
        ('{ name = "folder", root = "." }', set()),
        ('{ name = "folder", root = ".." }', set()),
        ('{ name = "folder", root = "mine.py" }', set()),
        ('{ name = "mine:data", root = "one" }', set()),
    ],
)
def test_roots_of_datasets(folder, dataset, gone):
    assert left(folder, dataset) == ALL - gone


def test_roots_in_variables(folder, monkeypatch):
    monkeypatch.setenv("XBENCH_CHEST_XRAY_ROOT", str(folder / "one"))
    assert left(folder, '"chest-xray"') == ALL - {"one/a/1.png"}


class TestChangedSince:
    def test_names_the_latest_file(self, folder):
        dirs = ImportDirs((str(folder),))
        os.utime(folder / "mine.py", (4e9, 4e9))
        (told,) = warn_of_changes(dirs, "2026-01-31T12:00:00+00:00")
        assert told.startswith(f"{folder / 'mine.py'} has changed")

    def test_says_nothing_of_what_was_there_before(self, folder):
        assert warn_of_changes(ImportDirs((str(folder),)), "2096-01-31T12:00:00+00:00") == ()

    def test_says_nothing_without_allowed_folders(self):
        assert warn_of_changes(ImportDirs(), "2026-01-31T12:00:00+00:00") == ()


def test_a_change_during_the_run_ends_the_cell_and_names_the_file(folder, tiny_data):
    cell = cell_of(tiny_data, model="mine:net", import_dirs=ImportDirs((str(folder),)))
    os.utime(folder / "mine.py", (4e9, 4e9))
    with pytest.raises(XbenchError, match=r"changed during the run \(.*mine\.py\)"):
        train(print, replace(cell.job(), code=(own_stamp(), "another stamp")))


def test_what_stdout_is_redirected_to(folder):
    kept = os.dup(1)
    try:
        with (folder / "result.json").open("w") as file:
            os.dup2(file.fileno(), 1)
            allowed = allowed_folders([str(folder)], suite_with('"chest-xray"'))
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    assert place_of(folder / "result.json") in allowed.left_out
