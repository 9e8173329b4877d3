"""Which memory limit holds where a suite, an experiment and the machine each have one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.cell_samples import MACHINE
from tests.run_samples import SUITE, suite_of
from xbench.errors import XbenchError
from xbench.memory.machine import Bound
from xbench.planning import plan as planning
from xbench.planning.limits import check_limits, collect_limit_warnings
from xbench.planning.plan import PlannedRun
from xbench.suite.cells import Cell, DatasetChoice
from xbench.training.settings import Choice, TrainingSettings
from xbench.units import parse_limit, tightest

GRAIN = 256 << 20
# What a machine has is rounded down to a grain, and so is a share of it.
HAS = 10 * GRAIN + 12_345


def plan_of(suite_limit: str | None) -> PlannedRun:
    bounds = (Bound("cgroup v2", 2 * HAS, "a file"), Bound("available memory", HAS, "another"))
    overrides = [] if suite_limit is None else [f"suite.memory_limit={suite_limit}"]
    return PlannedRun(
        suite=suite_of(SUITE, *overrides),
        machine=replace(MACHINE, memory_bounds=bounds),
        cells=[],
        data=[],
        models=[],
        memory_bound=bounds[1],
        default_histories={},
        warnings=(),
        import_dirs=(),
    )


def declared(*limits: str | None) -> Cell:
    """A cell with the limits that its suite and its experiment ask for."""
    return Cell(
        experiment="exp",
        column="sgd",
        model=Choice("net", {}),
        dataset=DatasetChoice(Choice("data", {}), None, False),
        optimizer=Choice("sgd", {}),
        training=TrainingSettings(),
        seed=0,
        path=("experiment", 0, "optimizer", 0),
        memory_limits=tightest(parse_limit(limit) if limit else None for limit in limits),
    )


@pytest.mark.parametrize(
    ("suite_limit", "experiment_limit", "limit_bytes"),
    [
        (None, None, 10 * GRAIN),
        ("1.5GB", None, 1_500_000_000),
        (None, "1.5GB", 1_500_000_000),
        ("50%", None, 5 * GRAIN),
        (None, "50%", 5 * GRAIN),
        (None, " 50 % ", 5 * GRAIN),
        ("2GB", "1.5GB", 1_500_000_000),
        ("1.5GB", "2GB", 1_500_000_000),
        # A size that binds is exact, and a share that binds is not, whoever asked for the other one.
        ("50%", "1.3GB", 1_300_000_000),
        ("1.3GB", "50%", 1_300_000_000),
        ("50%", "2GB", 5 * GRAIN),
        ("2GB", "50% ", 5 * GRAIN),
        # Both are shares of what the machine has.
        ("50%", "20%", 2 * GRAIN),
        ("20%", "50%", 2 * GRAIN),
        ("100%", "100%", 10 * GRAIN),
        # The machine has less than anybody asked for.
        ("9GB", "8GB", 10 * GRAIN),
        ("9GB", "100%", 10 * GRAIN),
        # Less than a grain.
        ("5%", None, round(HAS * 0.05)),
        ("5%", "100MB", 100_000_000),
    ],
)
def test_the_least_holds(monkeypatch, suite_limit, experiment_limit, limit_bytes):
    monkeypatch.setattr(planning, "can_limit_host_memory", lambda: True)
    assert plan_of(suite_limit).limit_of(declared(suite_limit, experiment_limit)) == limit_bytes


@pytest.mark.parametrize(
    ("suite_limit", "experiment_limit", "limit_bytes"), [(None, None, None), (None, "50%", 5 * GRAIN)]
)
def test_where_no_process_can_be_held_to_one(monkeypatch, suite_limit, experiment_limit, limit_bytes):
    """Nothing is limited that nobody asked for."""
    monkeypatch.setattr(planning, "can_limit_host_memory", lambda: False)
    assert plan_of(suite_limit).limit_of(declared(suite_limit, experiment_limit)) == limit_bytes


def test_the_bound_says_who_asked():
    plan = plan_of("50%")
    assert plan.bound_of(declared("50%", "1GB")).detail == "asked for: 1GB"
    assert plan.bound_of(declared("50%", "20%")).detail.startswith(
        "asked for: 20% of 2.68 GB (available memory)"
    )
    assert plan.bound_of(declared("50%")).detail.startswith("asked for: 50% of 2.68 GB")


@pytest.mark.parametrize(
    ("suite_limit", "experiment_limit", "asked"),
    [
        (None, None, ()),
        ("1.5GB", None, ("1500000000",)),
        ("2GB", "1500MB", ("1500000000",)),
        ("50%", "1.5GB", ("50%", "1500000000")),
        ("1.5GB", " 50.0 % ", ("50%", "1500000000")),
        ("50%", "12.5%", ("12.5%",)),
    ],
)
def test_what_was_asked_for_has_one_form(suite_limit, experiment_limit, asked):
    """What a cell is must not depend on how a limit was written."""
    assert tuple(map(str, declared(suite_limit, experiment_limit).memory_limits)) == asked


class TestLimitsAboveTheMachine:
    """A machine's own bound is kept, and told once for each limit as it was written."""

    def warnings(self, *cells: Cell) -> list[str]:
        return list(collect_limit_warnings(cells, plan_of(None).machine))

    def test_are_told_with_what_bounds_the_machine(self):
        (warning,) = self.warnings(declared("9GB"), declared("9 GB", "1GB"), declared("9000MB"))
        assert warning == (
            "memory_limit 9GB is more than this machine allows: cells are limited to 2.68 GB "
            "(available memory; another)"
        )

    @pytest.mark.parametrize("limits", [(), ("2GB",), ("100%",), ("50%", "1GB")])
    def test_others_are_not(self, limits):
        assert self.warnings(declared(*limits)) == []


class TestLimitsBelowWhatAProcessNeeds:
    BOUND = Bound("available memory", 10**10, "a file")
    IDLE = replace(MACHINE, memory_bounds=(BOUND,), idle_bytes=400_000_000)

    def mistakes(self, suite_limit: str | None, cell: Cell) -> str:
        suite = suite_of(SUITE, *([f"suite.memory_limit={suite_limit}"] if suite_limit else []))
        check_limits(suite, [cell], self.IDLE)
        try:
            suite.problems.raise_if_any()
        except XbenchError as error:
            return f"{error.message}\n{error.hint}"
        return ""

    def test_are_refused_with_the_least_that_works(self):
        told = self.mistakes("100MB", declared("100MB"))
        assert "--set suite.memory_limit=100MB: memory_limit 100MB is too low" in told
        assert "a process needs 400 MB before it trains anything" in told
        assert "at least 410 MB" in told

    def test_may_be_shares(self):
        assert "memory_limit 3% (300 MB) is too low" in self.mistakes(None, declared(None, "3%"))

    @pytest.mark.parametrize("limits", [(), ("400MB",), ("5%",), ("2GB", "1GB")])
    def test_others_are_not(self, limits):
        assert self.mistakes(None, declared(*limits)) == ""

    def test_cells_that_are_meant_to_run_out_of_memory_may_have_them(self):
        assert self.mistakes("100MB", replace(declared("100MB"), expect="oom")) == ""

    def test_are_not_known_without_a_measured_process(self):
        suite = suite_of(SUITE)
        check_limits(suite, [declared("1MB")], MACHINE)
        assert not suite.problems
