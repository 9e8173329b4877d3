"""An NVML for tests of devices that are made up."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest


@pytest.fixture
def nvml(monkeypatch) -> Callable[..., None]:
    """Puts a stand-in in the place of NVML, which knows one device or one MIG slice and its processes."""

    class Error(Exception):
        pass

    def install(processes: dict[int, int] | None = None, mig: str = "", fails: bool = False) -> None:
        def init() -> None:
            if fails:
                raise Error("no driver")

        def handle_by_uuid(uuid: str) -> str:
            if not uuid.startswith("MIG-" if mig else "GPU-"):
                raise Error("not found")
            return uuid

        module = SimpleNamespace(
            NVMLError=Error,
            nvmlInit=init,
            nvmlShutdown=lambda: None,
            nvmlDeviceGetHandleByUUID=handle_by_uuid,
            nvmlDeviceIsMigDeviceHandle=lambda handle: handle.startswith("MIG-"),
            nvmlDeviceGetName=lambda handle: mig,
            nvmlDeviceGetComputeRunningProcesses=lambda handle: [
                SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in (processes or {}).items()
            ],
        )
        monkeypatch.setitem(sys.modules, "pynvml", module)

    return install
