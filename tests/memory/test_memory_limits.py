"""Hard limits."""

from __future__ import annotations

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
        assert "5000000 bytes" in complaint
        assert allocated == 100 * MB  # nothing was limited

    @pytest.mark.parametrize(("megabytes", "allocated"), [(150, 150 * MB), (250, None)])
    def test_lets_pass_what_fits(self, megabytes, allocated):
        assert call_in_child(jobs.allocate_under, 200 * MB, megabytes) == allocated


class TestDeviceLimit:
    @pytest.mark.parametrize(("limit", "fraction"), [(20 * MB, 0.25), (80 * MB, 1.0), (200 * MB, 1.0)])
    def test_is_a_share_of_the_device(self, monkeypatch, limit, fraction):
        device, taken = torch.device("cuda:1"), []
        properties = {device: SimpleNamespace(total_memory=80 * MB)}
        monkeypatch.setattr(torch.cuda, "get_device_properties", properties.__getitem__)
        monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *args: taken.append(args))
        limit_device_memory(limit, device)
        assert taken == [(fraction, device)]
