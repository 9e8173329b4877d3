"""A terminal that is closed saves the cell in flight; a reader of stderr that leaves is nothing to a run."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import termios
import time

import pytest

from tests.cli.cli_process import copy_user_code, records_of

pytestmark = pytest.mark.slow

SUITE = """
[suite]
name = "closed"
checkpoint_interval = "1h"

[[experiment]]
name = "small"
model = "tiny_parts:build_model"
dataset = "tiny_parts:build_dataset"
train_size = 20
batch_size = 5
optimizer = [{ name = "sgd" }, { name = "slow_parts:SLOW", label = "slow", lr = 0.001 }, { name = "adam" }]
epochs = 30
"""
COMMAND = ("run", "suite.toml", "--allow-import", "code")


@pytest.fixture
def folder(tmp_path):
    copy_user_code(tmp_path / "code", "tiny_parts.py", "slow_parts.py")
    (tmp_path / "suite.toml").write_text(SUITE)
    (tmp_path / "steps").touch()
    return tmp_path


def own_terminal() -> None:
    """Let the terminal at stdin be that of this session, whose head this process is."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_a_closed_terminal_saves_the_cell_in_flight(xbench, folder):
    (folder / "slow").touch()
    terminal, end = pty.openpty()
    streams = {"stdin": end, "stdout": end, "stderr": end}
    with xbench.start(folder, *COMMAND, **streams, preexec_fn=own_terminal) as process:
        os.close(end)
        shown, deadline = b"", time.monotonic() + 120
        while (folder / "steps").stat().st_size < 20:
            assert process.poll() is None, shown
            assert time.monotonic() < deadline, shown
            if select.select([terminal], [], [], 0.05)[0]:
                shown += os.read(terminal, 1 << 16)
        os.close(terminal)
        os.killpg(process.pid, signal.SIGHUP)  # as its shell would, too
        assert process.wait(timeout=100) == 130
    assert b"loss" in shown  # the bars were there, and their thread
    (left,) = folder.glob("results/closed/*/checkpoints/*/step-*")
    stopped_at = int(left.name.removeprefix("step-"))
    assert stopped_at > 10
    (folder / "slow").unlink()
    run_whose_stderr_nobody_reads(xbench, folder, "left")
    sgd, slow, adam = records_of(folder)
    assert [sgd["status"], slow["status"], adam["status"]] == ["done"] * 3
    assert (slow["attempt"], slow["resumed_at"]) == (1, [stopped_at])


def test_stderr_is_not_needed(xbench, folder):
    run_whose_stderr_nobody_reads(xbench, folder, "closed")
    assert [record["status"] for record in records_of(folder)] == ["done"] * 3


def run_whose_stderr_nobody_reads(xbench, folder, how):
    """Its reader has `left` after a line, as `| head -1`, or it was `closed` from the beginning."""
    at_first = None if how == "left" else lambda: os.close(2)
    with xbench.start(folder, *COMMAND, "--format", "json", preexec_fn=at_first) as process:
        if how == "left":
            assert "3 cells" in process.stderr.readline()
        process.stderr.close()
        results = process.stdout.read()
        assert process.wait(timeout=100) == 0
    assert json.loads(results)
