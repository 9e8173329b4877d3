"""Run `xbench doctor`, for people and as JSON, and check what it found against the device."""

from __future__ import annotations

import json

from tests.gpu.checking import DEVICE, FOLDER, ON_CUDA, check, figure, run_step, xbench


def doctor() -> None:
    check(xbench("doctor", "--device", DEVICE) == 0, "xbench doctor failed")
    check(
        xbench("doctor", "--device", DEVICE, "--format", "json", output="doctor-report.json") == 0,
        "xbench doctor --format json failed",
    )
    found = json.loads((FOLDER / "doctor-report.json").read_text())
    memory = found["memory"]
    figure("device", found["device"])
    figure("bound", memory["bound"])
    figure("limit_gb", memory["limit_bytes"] / 1e9)
    check(found["device"] == ("cuda:0" if ON_CUDA else "cpu"), f"it chose the device {found['device']}")
    check(memory["hard"], "the memory limit is not hard")
    if ON_CUDA:
        check_device(found)


def check_device(found: dict) -> None:
    import torch

    total_bytes = torch.cuda.get_device_properties(0).total_memory
    names = [device["name"] for device in found["devices"]]
    check(torch.cuda.get_device_name(0) in names, f"the devices that it lists are {names}")
    limit_bytes = found["memory"]["limit_bytes"]
    check(0 < limit_bytes <= total_bytes, f"a limit of {limit_bytes} bytes on a device of {total_bytes}")


if __name__ == "__main__":
    run_step(doctor)
