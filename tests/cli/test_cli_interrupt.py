"""Interrupts: the second one ends a cell at once, as the first does if the cell cannot be saved; a probe ends
at the first."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.cli.cli_process import copy_user_code, one_line, records_of, wait_for

SUITE = """
[suite]
name = "interrupted"

[[experiment]]
name = "small"
model = "tiny_parts:build_model"
dataset = "tiny_parts:build_dataset"
train_size = 20
batch_size = 5
epochs = 5
optimizer = [
  { label = "first", name = "sgd" },
  # Its memory pass takes twelve steps at the most.
  { label = "second", name = "tiny_parts:STUBBORN", at = 15 },
  { label = "third", name = "adam" },
]
"""


def is_gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def is_importing_torch(process: psutil.Process) -> bool:
    """Whether torch's first libraries are there: the import then takes seconds yet."""
    try:
        return any("libtorch" in area.path for area in process.memory_maps())
    except psutil.Error:
        return False


@dataclass
class Interrupted:
    """A run that was interrupted.

    Attributes:
        family: the processes that it had started.
        libraries: files that the command itself had mapped.
    """

    place: Path
    exit_code: int
    out: str
    err: str
    family: list[psutil.Process]
    libraries: set[str]


@pytest.fixture(scope="module")
def interrupted(xbench, tmp_path_factory, allow_user_code) -> Interrupted:
    """Interrupted twice, while its second cell is in a step that does not end."""
    place = tmp_path_factory.mktemp("interrupted")
    (place / "suite.toml").write_text(SUITE)
    with xbench.start(place, "run", "suite.toml", *allow_user_code) as process:
        wait_for((place / "waiting").exists, "the second cell waits", process)
        command = psutil.Process(process.pid)
        family = command.children(recursive=True)
        libraries = {Path(area.path).name for area in command.memory_maps()}
        os.killpg(process.pid, signal.SIGINT)
        said = ""
        while "interrupt again to stop at once" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    return Interrupted(place, process.returncode, out, said + err, family, libraries)


def test_exit_code(interrupted):
    assert interrupted.exit_code == 130
    assert interrupted.out == ""
    outcome = one_line(interrupted.err).rpartition("interrupted; ")[2]
    assert outcome.startswith("1 of 3 cells has ended, recorded in results/interrupted/")
    assert outcome.endswith("; nothing of small / second / seed 0 is saved")
    assert "Traceback" not in interrupted.err


def test_cells_that_had_ended_are_recorded(interrupted):
    (record,) = records_of(interrupted.place)
    assert (record["column"], record["status"]) == ("first", "done")


def test_no_empty_logs(interrupted):
    (folder,) = interrupted.place.glob("results/interrupted/[!.]*")
    assert list((folder / "logs").iterdir()) == []


def test_no_process_is_left(interrupted):
    assert int((interrupted.place / "waiting").read_text()) in {process.pid for process in interrupted.family}
    wait_for(lambda: all(map(is_gone, interrupted.family)), "all processes are gone")


def test_the_command_itself_never_loads_torch(interrupted):
    assert any(name.startswith("libc") for name in interrupted.libraries)
    assert not any(name.startswith("libtorch") for name in interrupted.libraries)


def test_show_tells_what_did_not_run(interrupted, xbench):
    shown = xbench(interrupted.place, "show")
    assert shown.returncode == 0
    assert "second: 0 of 1 seeds were run" in shown.stdout
    assert "third: 0 of 1 seeds were run" in shown.stdout
    assert "first: " not in shown.stdout


GOES_ON = """
[suite]
name = "goes-on"
checkpoint_interval = "1h"

[[experiment]]
name = "small"
model = "tiny_parts:build_model"
dataset = "tiny_parts:build_dataset"
train_size = 20
batch_size = 5
epochs = 30
optimizer = { name = "slow_parts:SLOW", lr = 0.001 }
"""


def test_the_same_command_goes_on_where_a_cell_was_stopped(xbench, tmp_path):
    copy_user_code(tmp_path / "code", "tiny_parts.py", "slow_parts.py")
    (tmp_path / "suite.toml").write_text(GOES_ON)
    slow, steps = tmp_path / "slow", tmp_path / "steps"
    slow.touch()
    steps.touch()
    with xbench.start(tmp_path, "run", "suite.toml", "--allow-import", "code") as process:
        wait_for(lambda: steps.stat().st_size >= 20, "steps beyond those of its memory pass", process)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "stopping once the running cell is saved" in err
    (left,) = tmp_path.glob("results/goes-on/*/checkpoints/*/step-*")
    step = int(left.name.removeprefix("step-"))
    assert err.endswith(
        f"interrupted; no cell has ended; the next run continues small / slow_parts:SLOW / seed 0 after step "
        f"{step}\n"
    )
    slow.unlink()
    done = xbench.run_suite(tmp_path)
    assert done.returncode == 0, done.stderr
    (record,) = records_of(tmp_path)
    assert (record["status"], record["steps"]) == ("done", 120)
    assert record["resumed_at"] == [step]


@pytest.fixture
def interrupt(xbench, tmp_path, allow_user_code):
    """`interrupt(suite)`: what a run says on stderr that is interrupted once, in a step that does not end."""

    def run(suite: str) -> str:
        (tmp_path / "suite.toml").write_text(suite)
        with xbench.start(tmp_path, "run", "suite.toml", *allow_user_code) as process:
            wait_for((tmp_path / "waiting").exists, "it waits", process)
            os.killpg(process.pid, signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "Traceback" not in err
        return err

    return run


@pytest.mark.slow
def test_a_cell_that_cannot_be_saved_ends_at_the_first(interrupt):
    err = interrupt(SUITE.replace("STUBBORN", "Waiting"))
    assert "stopping; the next run starts the running cell over" in err


@pytest.mark.slow
def test_in_a_memory_pass(interrupt, tmp_path):
    """Nothing is lost: the pass is taken again the next time."""
    interrupt(SUITE.replace("at = 15", "at = 3"))
    assert [record["column"] for record in records_of(tmp_path)] == ["first"]


def test_while_torch_is_imported(xbench, tmp_path, allow_user_code):
    (tmp_path / "suite.toml").write_text(SUITE)
    with xbench.start(tmp_path, "run", "suite.toml", *allow_user_code) as process:
        command = psutil.Process(process.pid)
        wait_for(lambda: any(map(is_importing_torch, command.children())), "torch is imported", process)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err


@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP"])
def test_a_probe_ends_with_its_children(xbench, tmp_path, allow_user_code, number):
    what = ("--optimizer", "sgd", "--model", "probed_parts:build_wide", "--dataset", "synthetic-xray")
    with xbench.start(tmp_path, "probe-capacity", *what, *allow_user_code) as process:
        command = psutil.Process(process.pid)
        wait_for(lambda: any(map(is_importing_torch, command.children())), "torch is imported", process)
        family = command.children(recursive=True)
        os.kill(process.pid, signal.Signals[number])
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")
    wait_for(lambda: all(map(is_gone, family)), "all processes are gone")
