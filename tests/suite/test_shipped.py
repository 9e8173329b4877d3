"""Suites that come with xbench are found by name, wherever the command runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from xbench.suite.reader import read_suite
from xbench.suite.shipped import find_suite, shipped_suites


def test_a_name_stands_for_a_shipped_suite(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = find_suite(Path("report"))
    assert path == shipped_suites()["report"]
    assert read_suite(path).header.name == "report"


def test_a_file_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("report").write_text("mine")
    assert find_suite(Path("report")) == Path("report")


def test_another_name_is_left_for_the_reader_to_refuse():
    assert find_suite(Path("reprot")) == Path("reprot")


@pytest.mark.parametrize("name", shipped_suites())
def test_every_shipped_suite_can_be_read(name):
    assert read_suite(shipped_suites()[name]).header.name == name
