"""Which failures of the first worker process are mistakes in the suite."""

from __future__ import annotations

import pytest

from xbench.errors import Mistakes, UnusableDevice, XbenchError
from xbench.planning import plan
from xbench.suite.overrides import SuiteOption
from xbench.suite.reader import parse_suite

SUITE = """[suite]
name = "s"
device = "cuda:7"

[[experiment]]
name = "e"
model = "report-cnn"
dataset = "synthetic-xray"
optimizer = "sgd"
"""


@pytest.fixture
def plan_with(monkeypatch):
    """Returns a function that plans `SUITE` while describing the machine raises an error."""

    def run(error: XbenchError, *options: SuiteOption) -> None:
        def fail(*args, **options):
            raise error

        monkeypatch.setattr(plan, "examine_machine", fail)
        plan.plan_run(parse_suite(SUITE, "suite.toml", options))

    return run


def test_an_unusable_device_is_a_mistake_at_its_line(plan_with):
    with pytest.raises(Mistakes) as caught:
        plan_with(UnusableDevice("device 'cuda:7' not found", "use --device cpu"))
    assert caught.value.message == "suite.toml:3: device 'cuda:7' not found"
    assert caught.value.hint == "use --device cpu"


def test_or_at_its_option(plan_with):
    with pytest.raises(Mistakes, match=r"^--device cuda:8: device 'cuda:8' not found"):
        plan_with(UnusableDevice("device 'cuda:8' not found"), SuiteOption("device", "cuda:8"))


def test_another_error_has_no_place_in_the_suite(plan_with):
    with pytest.raises(XbenchError, match=r"^cannot start a worker process") as caught:
        plan_with(XbenchError("cannot start a worker process: too many files"))
    assert not isinstance(caught.value, Mistakes)
