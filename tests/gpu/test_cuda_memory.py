"""Limits, contexts and errors of memory on a CUDA device: skipped where there is none."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

from xbench.isolation.child import Limits
from xbench.isolation.run import run_in_child
from xbench.planning.machine import describe_machine
from xbench.units import DeviceChoice

pytestmark = pytest.mark.skipif(torch.cuda.device_count() == 0, reason="no CUDA device")

MB = 10**6
LIMITS = Limits("cuda:0", memory_bytes=3_000 * MB)


def context_of_this_process(send):
    """What the context takes, before and after kernels are loaded; with NVML's figures, and without NVML."""
    from xbench.memory import devices

    found = [devices.device_memory("cuda:0")]
    model = nn.Sequential(nn.Conv2d(3, 16, 5), nn.Flatten(), nn.Linear(16 * 28 * 28, 10)).cuda()
    model(torch.rand(8, 3, 32, 32, device="cuda")).sum().backward()
    torch.linalg.inv(torch.eye(64, device="cuda"))
    found.append(devices.device_memory("cuda:0"))
    devices._ask_nvml = lambda uuid, index: devices._Nvml()
    found.append(devices.device_memory("cuda:0"))
    return found


def test_a_context_is_seen_as_it_is_created_and_grows():
    ending = run_in_child(context_of_this_process, limits=LIMITS)
    assert ending.outcome == "returned", ending.stderr
    before, after, without_nvml = ending.value
    assert 50 * MB < before.context_bytes <= after.context_bytes < 1_100 * MB
    for memory in ending.value:
        parts = memory.free_bytes + memory.reserved_bytes + memory.context_bytes + memory.others_bytes
        assert parts == memory.total_bytes
    assert without_nvml.is_estimate
    assert without_nvml.context_bytes > 0


def cap_before_and_after_kernels(send):
    from xbench.memory.devices import device_memory
    from xbench.memory.limits import calibrate_device_limit_again

    def seen():
        memory = device_memory("cuda:0")
        return torch.cuda.get_per_process_memory_fraction(0) * memory.total_bytes, memory.context_bytes

    before = seen()
    torch.linalg.inv(torch.eye(64, device="cuda"))
    torch.rand(8, 8, device="cuda") @ torch.rand(8, 8, device="cuda")
    calibrate_device_limit_again()
    return before, seen()


def test_a_limit_leaves_room_for_the_context_as_it_has_grown():
    ending = run_in_child(cap_before_and_after_kernels, limits=LIMITS)
    assert ending.outcome == "returned", ending.stderr
    (early_cap, early_context), (cap, context) = ending.value
    assert early_cap + early_context == pytest.approx(LIMITS.memory_bytes, abs=8 * MB)
    assert cap + context == pytest.approx(LIMITS.memory_bytes, abs=8 * MB)
    assert cap <= early_cap + 8 * MB


def allocate(send, megabytes):
    return torch.empty(megabytes * MB, dtype=torch.uint8, device="cuda").nbytes


def test_what_goes_above_a_limit_is_out_of_memory():
    assert run_in_child(allocate, 1_000, limits=LIMITS).value == 1_000 * MB
    ending = run_in_child(allocate, 3_000, limits=LIMITS)
    assert ending.exhaustion == "device allocator", ending.reason


def fail_as_a_library_does(send, refused):
    if refused:
        with pytest.raises(torch.OutOfMemoryError):
            allocate(send, 3_000)
    raise RuntimeError("FIND was unable to find an engine to execute this computation")


@pytest.mark.parametrize(("refused", "exhaustion"), [(True, "device allocator"), (False, None)])
def test_an_error_of_a_library_is_of_memory_where_the_allocator_had_refused(refused, exhaustion):
    ending = run_in_child(fail_as_a_library_does, refused, limits=LIMITS)
    assert (ending.outcome, ending.exhaustion) == ("failed", exhaustion), ending.reason


def access_illegally(send):
    table = torch.zeros(4, device="cuda")
    table[torch.tensor([10**9], device="cuda")] = 1.0
    torch.cuda.synchronize()


def test_a_device_that_no_longer_answers_is_an_error():
    ending = run_in_child(access_illegally, limits=LIMITS)
    assert (ending.outcome, ending.exhaustion) == ("failed", None), ending.reason


def retry(send):
    """Fill the device with blocks that are free again, of a size that cannot be used for the next."""
    from xbench.memory.devices import allocator_retries
    from xbench.memory.peaks import CudaAllocated, peak_meter

    meter, tensors = peak_meter("cuda:0"), CudaAllocated(torch.device("cuda:0"))
    meter.reset()
    blocks = [torch.empty(100 * MB, dtype=torch.uint8, device="cuda") for _ in range(20)]
    full = torch.cuda.memory_reserved(0)
    del blocks
    before = allocator_retries("cuda:0")
    block = torch.empty(1_800 * MB, dtype=torch.uint8, device="cuda")
    tensors.reset()
    return allocator_retries("cuda:0") - before, full, meter.peak_bytes(), block.nbytes


def test_giving_back_the_cache_is_counted_and_its_peak_is_kept():
    ending = run_in_child(retry, limits=LIMITS)
    assert ending.outcome == "returned", ending.stderr
    retries, full, peak, _ = ending.value
    assert retries == 1
    assert peak >= full


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_another_device_than_the_first_is_the_one_that_is_limited():
    ending = run_in_child(allocate, 3_000, limits=Limits("cuda:1", memory_bytes=3_000 * MB))
    assert ending.exhaustion == "device allocator", ending.reason


@pytest.mark.skipif("MIG" in os.environ.get("CUDA_VISIBLE_DEVICES", ""), reason="a slice has another name")
def test_a_device_is_found_whatever_is_visible():
    """By its UUID: NVML's numbers are those of the machine."""

    def described(visible):
        return run_in_child(describe_under, visible).get().device_facts

    uuid = f"GPU-{run_in_child(uuid_of_first).get()}"
    assert described(uuid) == described(os.environ.get("CUDA_VISIBLE_DEVICES", "0"))


def describe_under(send, visible):
    os.environ["CUDA_VISIBLE_DEVICES"] = visible
    return describe_machine(send, DeviceChoice("cuda"))


def uuid_of_first(send):
    return str(torch.cuda.get_device_properties(0).uuid)
