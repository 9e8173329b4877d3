"""`xbench show --settings`: all settings of each optimizer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.cli_process import one_line

FIXTURE = Path(__file__).parents[1] / "records" / "fixtures" / "memory-passes"


@pytest.fixture
def show(xbench, tmp_path):
    shutil.copytree(FIXTURE, tmp_path / "results" / "small" / "20260102-120000")
    return lambda *flags: xbench(tmp_path, "show", *flags)


def test_the_table_has_settings_of_components_and_no_figures(show):
    done = show("--settings", "--format", "markdown")
    assert done.returncode == 0, done.stderr
    assert "| optimizer | sgd | sgd | adam | lbfgs | muon |" in done.stdout
    rows = {
        cells[1].strip(): cells[2:-1]
        for cells in (row.split("|") for row in done.stdout.splitlines())
        if cells[1:]
    }
    assert [cell.strip() for cell in rows["lr"]] == ["0.01", "1e+30", "-", "-", "-"]
    assert "training time" not in rows
    assert "or have no value, have its defaults" in one_line(done.stdout)


def test_it_is_a_table_of_its_own(show):
    done = show("--settings", "--memory")
    assert done.returncode == 2
    assert "--memory and --settings are two tables" in done.stderr
