"""`probe-capacity` makes a suite of its arguments: whatever they are, it is a suite or they are refused."""

from __future__ import annotations

import contextlib
import io
import sys
from unittest import mock

import pytest

from tests.fuzz.fuzz_suites import in_this_process
from xbench.cli import main

VALUES = ('a"\n\x7f😀', "\x1b[31m", "x" * 100_000, "\udcff", "", "adam\\", "sgd' }", "../x:y", "torchvision/")


@pytest.mark.parametrize(
    "flag", ["--optimizer", "--model", "--dataset", "--memory-limit", "--device", "--set"]
)
def test_arguments_are_refused_by_their_option(flag):
    others = {"--optimizer": "adam", "--dataset": "nosuch"}
    with in_this_process():
        for value in VALUES:
            given = [f"{option}={text}" for option, text in {**others, flag: value}.items()]
            err = io.StringIO()
            with (
                mock.patch.object(sys, "argv", ["xbench", "probe-capacity", *given]),
                contextlib.redirect_stderr(err),
                pytest.raises(SystemExit) as ended,
            ):
                main()
            assert ended.value.code == 2
            lines = err.getvalue().splitlines()
            assert all(line.isprintable() and len(line) < 2000 for line in lines)
            assert lines[0].startswith("error: --")
            assert any(line.startswith(f"error: {flag}") for line in lines)
