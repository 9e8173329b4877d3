"""What all tests of the command line share."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import pytest

from tests.cli.cli_process import USER_CODE, Ran

SMALL = """
suite.name = "small"
[[experiment]]
name = "small"
model = "tiny_parts:build_model"
dataset = "tiny_parts:build_dataset"
optimizer = "sgd"
"""


@pytest.fixture(scope="session")
def allow_user_code() -> tuple[str, str]:
    """The flag that lets suites use `tiny_parts` and `sized_parts`."""
    return "--allow-import", str(USER_CODE)


@pytest.fixture(scope="session")
def run_suite(xbench, allow_user_code, tmp_path_factory):
    """`run_suite(text, *flags)`: a run of a suite of that text, in a folder of its own."""

    def run(text: str, *flags: str) -> Ran:
        folder = tmp_path_factory.mktemp("suite")
        (folder / "suite.toml").write_text(text, encoding="utf-8")
        return Ran(xbench(folder, "run", "suite.toml", *flags, *allow_user_code), folder)

    return run


@pytest.fixture(scope="session")
def above_base(run_suite):
    """`above_base(megabytes)`: a limit of that much more than a cell's process holds in any case (which
    differs from one build of torch to another), and than what a limit keeps in reserve."""
    (cell,) = run_suite(SMALL).cells("small")
    base_bytes = cell["memory"]["base_host_bytes"]
    return lambda megabytes: f"{base_bytes + (megabytes + 9) * 10**6}B"


class Clock:
    """A clock that tests set.

    Attributes:
        now_s: the time, in seconds.
    """

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def printed(monkeypatch) -> Callable[[], str]:
    """`printed()`: what was written to stderr since the last call."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)

    def since() -> str:
        text = stream.getvalue()
        stream.seek(0)
        stream.truncate()
        return text

    return since
