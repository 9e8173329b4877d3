"""Ctrl-C before a command does its work: one line, and no traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest

from xbench import cli
from xbench.cli.app import app


def interrupt(*args: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_before_the_entry_point_hardly_anything_is_imported():
    """An interrupt of what is imported there cannot be caught."""
    code = "import sys, xbench.cli; print(*(name for name in sys.modules if name.startswith('xbench')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"xbench", "xbench.cli"}


def test_during_imports(monkeypatch, capsys):
    monkeypatch.setattr(cli, "_run_command", interrupt)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert (caught.value.code, capsys.readouterr()) == (130, ("", "interrupted\n"))


def test_while_a_command_reads_its_suite(monkeypatch, capsys):
    monkeypatch.setattr("xbench.suite.reader.read_suite", interrupt)
    with pytest.raises(SystemExit) as caught:
        app(["run", "test-functions"])
    assert (caught.value.code, capsys.readouterr()) == (130, ("", "interrupted\n"))
