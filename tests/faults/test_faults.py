"""A sample of the faults of `table.py`: one after the other in one folder, and plugins that do what they
should not."""

from __future__ import annotations

import shutil

import pytest

from tests.faults.fault_chain import Chain, undisturbed
from tests.faults.fault_checks import place_of, wrong_cells
from tests.faults.fault_damage import DAMAGE, Damage
from tests.faults.fault_scene import Scene, lines_of
from tests.faults.fault_suites import PLUGINS
from tests.faults.faults import HINDERED, LIVE, kill_once

pytestmark = pytest.mark.slow

SAMPLE = (
    "a second run",
    "SIGKILL of the command",
    "records cut",
    "SIGINT",
    "a checkpoint flipped",
    "SIGKILL of its group",
    "SIGKILL of a worker",
    "a trace flipped",
    "outputs cut",
    "garbage in records",
    "SIGTERM",
    "results not writable",
    "run.json cut",
)

# How often a fault may come too late, for a command that has ended.
MAX_TRIES = 5


@pytest.fixture(scope="module")
def chain() -> Chain:
    by_name = {fault.name: fault for fault in (*LIVE, *HINDERED, *DAMAGE)}
    chain = Chain(4, undisturbed())
    try:
        for name in SAMPLE:
            let_happen(by_name[name], chain)
    finally:
        chain.finish()
    return chain


def let_happen(fault, chain) -> None:
    for _ in range(MAX_TRIES):
        if chain.meet(fault):
            return
        if isinstance(fault, Damage):
            chain.meet(kill_once(fault.found))  # then there is something to damage


def test_nothing_is_lost_or_left(chain):
    assert not chain.found, "\n".join(chain.found)


def test_faults_happened_in_runs_that_came_to_their_end(chain):
    assert set(SAMPLE) <= {name for name, tally in chain.tallies.items() if tally.injected}
    assert all(tally.right == tally.declared for tally in chain.tallies.values())
    assert any(tally.declared for tally in chain.tallies.values())


@pytest.fixture(scope="module")
def plugins():
    """A run in which all kinds of things go wrong, each in its cell."""
    scene = Scene(PLUGINS)
    try:
        yield scene, scene.start().wait()
    finally:
        scene.end_all()
        shutil.rmtree(scene.scratch)


def test_each_plugin_is_its_own_cells_fault(plugins):
    scene, ended = plugins
    declared, wrong = wrong_cells(scene.run, PLUGINS, reference=None)
    assert declared == 18
    assert not wrong, "\n".join(wrong)
    assert (ended.exit_code, "Traceback" in ended.err) == (1, False), ended


def test_what_plugins_say_is_kept_within_bounds(plugins):
    scene, ended = plugins
    records, damaged, rest = lines_of(scene.run)
    assert (damaged, rest) == ([], b"")
    assert {len(record["reason"]) < 2000 for record in records} == {True}
    assert len(ended.err) < 20_000
    assert ("after-all", "adam", 0) in {place_of(record) for record in records}


def test_no_process_of_a_plugin_is_left(plugins):
    scene, _ = plugins
    workers = [process for _, process in scene.processes() if len(process.children()) == 0]
    assert all("forkserver" in " ".join(process.cmdline()) for process in workers), workers
