"""Hard limits."""

from __future__ import annotations

import os
from types import SimpleNamespace

import memory_jobs as jobs
import pytest
import torch

from xbench.isolation.run import call_in_child
from xbench.memory.limits import limit_device_memory

MB = jobs.MB


class TestHostLimit:
    def test_below_what_is_held(self):
        complaint, allocated = call_in_child(jobs.limit_to, 5 * MB)
        assert "the limit of 5.00 MB is below" in complaint
        assert allocated == 100 * MB  # nothing was limited

    def test_less_than_the_reserve_above_what_is_held(self):
        complaint, allocated = call_in_child(jobs.limit_above, 4 * MB)
        assert "and a reserve of" in complaint
        assert allocated == 100 * MB

    @pytest.mark.parametrize(("megabytes", "allocated"), [(150, 150 * MB), (250, None)])
    def test_lets_pass_what_fits(self, megabytes, allocated):
        assert call_in_child(jobs.allocate_under, 200 * MB, megabytes) == allocated

    @pytest.mark.parametrize("before", ["", "mapped", "freed"])
    def test_is_held_and_used_but_for_its_reserve(self, before):
        """Whatever was mapped or freed before the limit was calibrated again."""
        limit, reserve, peak = call_in_child(jobs.fill_under, 150 * MB, MB // 2, before)
        assert peak <= limit
        assert peak == pytest.approx(limit - reserve, abs=6 * MB)

    def test_is_held_after_heap_was_given_back(self):
        """Its holes are filled again without being counted."""
        limit, _, peak = call_in_child(jobs.fill_under, 150 * MB, MB // 10, "given back")
        assert peak <= limit

    def test_its_reserve_covers_pages_of_files(self):
        """As a library's, whose code is first called after the limit was taken."""
        late = 7 * MB
        limit, reserve, peak = call_in_child(jobs.fill_under, 150 * MB, MB // 2, "", late)
        assert limit - reserve < peak <= limit

    @pytest.mark.parametrize(
        ("soft", "hard", "taken"),
        [
            (None, None, 300),
            (100, None, 100),
            (100, 100, 100),
            (100, 200, 100),
            (500, None, 300),
            (500, 600, 300),
        ],
    )
    @pytest.mark.parametrize("times", [1, 2])
    def test_never_raises_a_limit_that_stands(self, soft, hard, taken, times):
        above = [None if megabytes is None else megabytes * MB for megabytes in (soft, hard)]
        rise, hard_stands = call_in_child(jobs.limit_within, *above, 300 * MB, times)
        assert rise == pytest.approx(taken * MB, abs=3 * MB)
        assert hard_stands


class TestDeviceLimit:
    """With a CUDA device that is made up: 80 MB, of which others and a context use 30."""

    DEVICE = torch.device("cuda:1")

    @pytest.fixture(autouse=True)
    def taken(self, monkeypatch):
        taken = []
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (48 * MB, 80 * MB))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2 * MB)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1-2"))
        monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *args: taken.append(args))
        return taken

    @pytest.mark.parametrize(("limit", "fraction"), [(30, 0.25), (90, 1.0), (200, 1.0)])
    def test_leaves_out_the_context(self, nvml, taken, limit, fraction):
        nvml(processes={os.getpid(): 12 * MB, os.getppid(): 18 * MB})
        limit_device_memory(limit * MB, self.DEVICE)
        assert taken == [(fraction, self.DEVICE)]

    @pytest.mark.parametrize("known", [{"fails": True}, {"processes": {os.getppid(): 18 * MB}}])
    def test_whose_size_nobody_tells(self, nvml, taken, known):
        nvml(**known)
        limit_device_memory(50 * MB, self.DEVICE)
        assert taken == [(0.25, self.DEVICE)]

    def test_below_the_context(self, nvml, taken):
        nvml(processes={os.getpid(): 12 * MB})
        with pytest.raises(MemoryError, match=r"what a CUDA context holds \(10 MB\)"):
            limit_device_memory(10 * MB, self.DEVICE)
        assert taken == []
