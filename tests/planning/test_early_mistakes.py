"""Mistakes that are reported before the first worker process starts."""

from __future__ import annotations

import pytest

from tests.planning.test_device_mistakes import SUITE
from xbench.errors import Mistakes
from xbench.planning import plan
from xbench.suite.overrides import SuiteOption
from xbench.suite.reader import parse_suite


@pytest.fixture
def tell(monkeypatch):
    """Returns a function that plans a suite and returns its mistakes. No worker process may start."""

    def run(text: str, *options: SuiteOption) -> str:
        for name in ("ask", "examine_machine"):
            monkeypatch.setattr(plan, name, lambda *args: pytest.fail("a worker process would have started"))
        with pytest.raises(Mistakes) as caught:
            plan.plan_run(parse_suite(text, "suite.toml", options))
        return caught.value.message

    return run


@pytest.mark.parametrize("text", ["", '[suite]\nname = "s"\n', 'experiment = []\nsuite.name = "s"\n'])
def test_of_an_empty_suite(tell, text):
    assert "experiment" in tell(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [("memory-limit", "0"), ("time-limit", "0s"), ("timeout", "soon"), ("device", "tpu"), ("seeds", "0")],
)
def test_of_an_option(tell, name, value):
    assert tell(SUITE, SuiteOption(name, value)).startswith(f"--{name} {value}: ")
