"""Waiting for processes to end."""

from __future__ import annotations

import time

import psutil


def wait_until_gone(pid: int, seconds: float = 60) -> None:
    """Return once there is no such process (a dead one that nobody has waited for counts as gone)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} is still there")
