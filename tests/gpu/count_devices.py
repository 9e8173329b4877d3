"""Print how many CUDA devices there are. The driver itself is asked: importing torch would take seconds."""

from __future__ import annotations

import ctypes


def count_devices() -> int:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


if __name__ == "__main__":
    print(count_devices())
