"""Keys about time: how long a cell may take, and how often it is saved."""

from __future__ import annotations

import pytest

from xbench.suite.overrides import SuiteOption

SGD = 'optimizer = "sgd"\n'
HEADER = '[suite]\nname = "short"\n'
REST = '[[experiment]]\nname = "exp"\nmodel = "net"\ndataset = "pictures"\n' + SGD


def test_without_any_of_them(read, cells, head):
    header = read(head + SGD).header
    assert (header.timeout, header.checkpoint_interval) == (None, 60)
    assert cells(head + SGD)[0].timeout_s is None


@pytest.mark.parametrize(("value", "seconds"), [("5s", 5), ("1.5m", 90), ("2h", 7_200), ("1h 30m", 5_400)])
@pytest.mark.parametrize("key", ["timeout", "checkpoint_interval"])
def test_of_the_suite(read, key, value, seconds):
    suite = read(f'{HEADER}{key} = "{value}"\n{REST}')
    suite.problems.raise_if_any()
    assert getattr(suite.header, key) == seconds


def test_of_an_experiment(cells, head):
    (cell,) = cells(head + 'timeout = "5s"\n' + SGD)
    assert cell.timeout_s == 5


def test_a_flag_replaces_the_suites(read):
    suite = read(f'{HEADER}timeout = "5s"\n{REST}', SuiteOption("timeout", "9s"))
    suite.problems.raise_if_any()
    assert suite.header.timeout == 9


@pytest.mark.parametrize("value", ['"soon"', '""', '"-5s"', '"0s"', '"5 parsecs"'])
@pytest.mark.parametrize("key", ["timeout", "checkpoint_interval"])
def test_what_is_no_time_is_told_with_its_line(complaints, key, value):
    (complaint,) = complaints(f"{HEADER}{key} = {value}\n{REST}")
    assert complaint.startswith(f"my.toml:3: '{value.strip(chr(34))}' is not a duration")


def test_also_in_an_experiment(complaints, head):
    (complaint,) = complaints(head + 'timeout = "soon"\n' + SGD)
    assert complaint.startswith("my.toml:7: 'soon' is not a duration")
