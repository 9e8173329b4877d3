"""Tell what the check runs on: the card, its driver, versions, and whether steps can run side by side."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys

import torch

import xbench
from tests.gpu.checking import ON_CUDA, check, figure, run_step

# For six probes of 4 GB and six small trainings at once, each with a CUDA context.
MIN_FREE_BYTES = 40 << 30
MIN_CORES = 12


def machine() -> None:
    print(f"xbench {xbench.__file__}")
    figure("python", platform.python_version())
    figure("torch", torch.__version__)
    figure("cores", len(os.sched_getaffinity(0)))
    subprocess.run([sys.executable, "-m", "pip", "list", "--format", "freeze"])
    side_by_side = False
    if ON_CUDA:
        side_by_side = describe_device() and len(os.sched_getaffinity(0)) >= MIN_CORES
    figure("runs_side_by_side", side_by_side)


def describe_device() -> bool:
    """Print the device's facts.

    Returns:
        Whether several processes can share it without moving each other's memory limits: it has room, and
        NVML tells what each process holds.
    """
    if shutil.which("nvidia-smi"):
        for arguments in ([], ["-q", "-d", "MEMORY,CLOCK,COMPUTE"]):
            subprocess.run(["nvidia-smi", *arguments])
    if not torch.cuda.is_available():
        check(False, "PyTorch cannot use the device: it is built without CUDA, or for another driver")
        return False
    properties = torch.cuda.get_device_properties(0)
    torch.zeros(1, device="cuda")  # makes the context
    free_bytes, total_bytes = torch.cuda.mem_get_info()
    figure("card", torch.cuda.get_device_name(0))
    figure("driver", driver_version())
    figure("cuda", torch.version.cuda)
    figure("cudnn", torch.backends.cudnn.version())
    figure("total_gb", total_bytes / 1e9)
    figure("free_gb", free_bytes / 1e9)
    figure("matmul_tf32", torch.backends.cuda.matmul.allow_tf32)
    figure("cudnn_tf32", torch.backends.cudnn.allow_tf32)
    known = nvml_knows_this_process(str(properties.uuid))
    figure("nvml_knows_processes", known)
    check(free_bytes > 4 << 30, "less than 4 GiB of the device are free: other programs use it")
    return known and free_bytes >= MIN_FREE_BYTES


def driver_version() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True).stdout.split()[0]
    except (OSError, IndexError):
        return "unknown"


def nvml_knows_this_process(uuid: str) -> bool:
    """Whether NVML lists this process, which has a context, by the process ID that it has here."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        return os.getpid() in {p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)}
    except Exception as error:  # no package, library or driver, or a MIG slice
        print(f"NVML: {type(error).__name__}: {error}")
        return False


if __name__ == "__main__":
    run_step(machine)
