"""Whose memory of a CUDA device is whose, on one that is made up."""

from __future__ import annotations

import os

import pytest
import torch

from xbench.memory.devices import (
    MAX_CONTEXT_BYTES,
    allocator_retries,
    create_context,
    device_memory,
    device_pressure,
    slice_name,
)
from xbench.memory.peaks import CudaAllocated, forget_device_memory, peak_meter

MB = 10**6
DEVICE = "cuda:1"
ANOTHER = 1_000_000_007


def known(made_up) -> tuple[int, str]:
    memory = device_memory(DEVICE)
    total = memory.free_bytes + memory.reserved_bytes + memory.context_bytes + memory.others_bytes
    assert total == memory.total_bytes == made_up.total
    return memory.context_bytes, memory.context_method


class TestContext:
    def test_is_what_nvml_says_of_this_process(self, made_up):
        made_up.others = {1: 9_000 * MB}
        made_up.reserved = 2_000 * MB
        assert known(made_up) == (500 * MB, "nvml")

    def test_that_was_there_before(self, made_up):
        made_up.has_context = True
        assert known(made_up) == (500 * MB, "nvml")

    def test_in_a_container_is_the_process_that_has_appeared(self, made_up):
        made_up.pid, made_up.others = ANOTHER, {1: 9_000 * MB}
        assert known(made_up) == (500 * MB, "nvml")
        made_up.context += 100 * MB  # kernels are loaded, and another process starts
        made_up.others[2] = 700 * MB
        assert known(made_up) == (600 * MB, "nvml")

    def test_in_a_container_a_host_process_of_the_same_number_is_another(self, made_up):
        made_up.pid, made_up.others = ANOTHER, {os.getpid(): 9_000 * MB}
        assert known(made_up) == (500 * MB, "nvml")

    def test_of_a_process_that_nvml_does_not_list_is_the_fall_of_the_free_memory(self, made_up):
        made_up.pid, made_up.others = None, {1: 9_000 * MB}
        create_context(DEVICE)
        made_up.reserved, made_up.context = 3_000 * MB, 650 * MB
        assert known(made_up) == (650 * MB, "difference")

    def test_a_process_that_starts_meanwhile_is_not_taken_for_this_one(self, made_up):
        """It has appeared, too, and does not account for all that is gone."""
        made_up.pid, made_up.starting = None, {2: 300 * MB}
        context, method = known(made_up)
        assert method == "difference"
        assert context == 800 * MB

    def test_of_others_that_start_later_counts_no_more_than_a_context_can_take(self, made_up):
        made_up.pid = None
        create_context(DEVICE)
        made_up.others = {1: 9_000 * MB}
        assert known(made_up) == (MAX_CONTEXT_BYTES, "difference")

    @pytest.mark.parametrize("others", [0, 200, 9_000])
    def test_without_nvml_is_at_most_what_is_in_use(self, made_up, others):
        made_up.has_nvml, made_up.others = False, {1: others * MB}
        assert known(made_up) == (min(500 * MB + others * MB, MAX_CONTEXT_BYTES), "bound")

    def test_a_fall_that_no_context_takes_says_nothing(self, made_up):
        made_up.pid, made_up.starting = None, {2: 5_000 * MB}
        assert known(made_up) == (MAX_CONTEXT_BYTES, "bound")

    def test_where_nvml_may_not_tell_the_free_memory(self, made_up):
        made_up.tells_free = False
        assert known(made_up) == (500 * MB, "nvml")

    def test_where_nvml_does_not_tell_what_a_process_uses(self, made_up, monkeypatch):
        listed = made_up.nvml_processes

        def untold(handle):
            for process in listed(handle):
                process.usedGpuMemory = None
                yield process

        monkeypatch.setattr(__import__("pynvml"), "nvmlDeviceGetComputeRunningProcesses", untold)
        assert known(made_up) == (500 * MB, "difference")


class TestSlices:
    def test_by_the_uuid_that_cuda_gives(self, made_up):
        made_up.slice = "H100 MIG 1g.10gb"
        assert device_memory(DEVICE).mig == slice_name(DEVICE) == "H100 MIG 1g.10gb"

    def test_by_the_one_that_is_visible(self, made_up, monkeypatch):
        """CUDA may give the UUID of the whole device."""
        made_up.slice, made_up.slice_uuid = "H100 MIG 1g.10gb", "7-7"
        assert slice_name(DEVICE) == ""
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-3-4, MIG-7-7")
        assert slice_name(DEVICE) == "H100 MIG 1g.10gb"

    def test_a_name_takes_no_context(self, made_up):
        assert slice_name(DEVICE) == ""
        assert not made_up.has_context

    def test_a_device_that_nvml_has_lost(self, made_up, monkeypatch):
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: made_up)
        made_up.uuid = "9-9"
        assert known(made_up) == (500 * MB, "bound")


class TestPressure:
    def test_is_what_the_limit_left_at_the_peak(self, made_up):
        made_up.fraction, made_up.peak = 0.25, 19_900 * MB
        pressure = device_pressure()
        assert (pressure.room_bytes, pressure.allowed_bytes) == (100 * MB, 20_000 * MB)
        assert pressure.is_high

    def test_is_what_others_leave_free(self, made_up):
        made_up.others = {1: 79_400 * MB}
        assert device_pressure().room_bytes == 100 * MB
        assert device_pressure().is_high

    def test_is_low_with_room(self, made_up):
        made_up.reserved = 40_000 * MB
        assert not device_pressure().is_high

    def test_of_a_small_limit_is_a_share_of_it(self, made_up):
        made_up.fraction, made_up.peak = 0.01, 700 * MB  # of 800
        assert not device_pressure().is_high
        made_up.peak = 790 * MB
        assert device_pressure().is_high

    def test_is_high_where_the_allocator_has_refused(self, made_up):
        made_up.counters = {"num_ooms": 1}
        assert device_pressure().is_high

    def test_is_not_known_of_a_device_that_is_lost(self, made_up, monkeypatch):
        def lost(device):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        monkeypatch.setattr(torch.cuda, "mem_get_info", lost)
        assert device_pressure() is None

    def test_is_not_known_without_cuda(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
        assert device_pressure() is None


def test_retries_of_the_allocator(made_up):
    assert allocator_retries(DEVICE) == 0
    made_up.counters = {"num_alloc_retries": 3}
    assert allocator_retries(DEVICE) == 3


def test_what_an_allocator_has_been_through_can_be_forgotten(made_up):
    made_up.reserved, made_up.peak = 1_000 * MB, 79_900 * MB
    made_up.counters = {"num_ooms": 1, "num_alloc_retries": 3}
    CudaAllocated(DEVICE).reset()  # which keeps the peak of what was reserved
    forget_device_memory(DEVICE)
    assert not device_pressure().is_high
    assert allocator_retries(DEVICE) == 0
    assert peak_meter(DEVICE).peak_bytes() == 1_000 * MB


class TestReservedPeak:
    def test_outlives_resets_of_what_tensors_hold(self, made_up):
        """Near a limit the allocator gives blocks back, and the last reset may come after that."""
        meter, tensors = peak_meter(DEVICE), CudaAllocated(torch.device(DEVICE))
        meter.reset()
        made_up.peak = 900 * MB
        made_up.reserved = 400 * MB
        tensors.reset()
        assert meter.peak_bytes() == 900 * MB
        made_up.peak = 950 * MB
        assert meter.peak_bytes() == 950 * MB

    def test_starts_anew(self, made_up):
        meter = peak_meter(DEVICE)
        made_up.peak, made_up.reserved = 900 * MB, 400 * MB
        CudaAllocated(torch.device(DEVICE)).reset()
        meter.reset()
        assert meter.peak_bytes() == 400 * MB
