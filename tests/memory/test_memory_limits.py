"""Hard limits."""

from __future__ import annotations

import pytest
import torch

from tests.memory import memory_jobs as jobs
from xbench.errors import XbenchError
from xbench.isolation.run import run_in_child
from xbench.memory.limits import calibrate_device_limit_again, charged_peak_bytes, limit_device_memory

MB = jobs.MB


class TestHostLimit:
    def test_below_what_is_held(self):
        complaint, allocated = run_in_child(jobs.limit_to, 5 * MB).get()
        assert "the limit of 5.00 MB is below" in complaint
        assert allocated == 100 * MB  # nothing was limited

    def test_less_than_the_reserve_above_what_is_held(self):
        complaint, allocated = run_in_child(jobs.limit_above, 4 * MB).get()
        assert "and a reserve of" in complaint
        assert allocated == 100 * MB

    @pytest.mark.parametrize(("megabytes", "allocated"), [(150, 150 * MB), (250, None)])
    def test_lets_pass_what_fits(self, megabytes, allocated):
        assert run_in_child(jobs.allocate_under, 200 * MB, megabytes).get() == allocated

    @pytest.mark.parametrize("before", ["", "mapped", "freed"])
    def test_is_held_and_used_but_for_its_reserve(self, before):
        """Whatever was mapped or freed before the limit was calibrated again."""
        limit, reserve, peak = run_in_child(jobs.fill_under, 150 * MB, MB // 2, before).get()
        assert peak <= limit
        assert peak == pytest.approx(limit - reserve, abs=6 * MB)

    def test_is_held_after_heap_was_given_back(self):
        """Its holes are filled again without being counted."""
        limit, _, peak = run_in_child(jobs.fill_under, 150 * MB, MB // 10, "given back").get()
        assert peak <= limit

    @pytest.mark.parametrize("kept", [20 * MB, 100 * MB])
    def test_is_held_again_after_it_was_lifted(self, kept):
        """What stays counts, even if three times as much as the limit was in use meanwhile."""
        limit, peak, children, charged = run_in_child(jobs.fill_after_lifting, 150 * MB, kept).get()
        assert limit - 20 * MB < peak <= limit
        before, meanwhile, after = children
        assert meanwhile == "unlimited"
        assert before != meanwhile != after
        assert charged[0] is None, "the address space was larger while the limit was lifted"

    def test_its_reserve_covers_pages_of_files(self):
        """As a library's, whose code is first called after the limit was taken."""
        late = 7 * MB
        limit, reserve, peak = run_in_child(jobs.fill_under, 150 * MB, MB // 2, "", late).get()
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
        rise, hard_stands = run_in_child(jobs.limit_within, *above, 300 * MB, times).get()
        assert rise == pytest.approx(taken * MB, abs=3 * MB)
        assert hard_stands


class TestDeviceLimit:
    """On a CUDA device that is made up: 80 MB, of which others and a context use 30."""

    DEVICE = torch.device("cuda:1")

    @pytest.fixture(autouse=True)
    def cuda(self, made_up):
        made_up.total, made_up.context, made_up.reserved = 80 * MB, 10 * MB, 2 * MB
        made_up.others = {1: 20 * MB}

    @pytest.mark.parametrize(("limit", "fraction"), [(30, 0.25), (90, 1.0), (200, 1.0)])
    def test_leaves_out_the_context(self, made_up, limit, fraction):
        limit_device_memory(limit * MB, self.DEVICE)
        assert made_up.fraction == fraction

    @pytest.mark.parametrize("known", [{"has_nvml": False}, {"pid": None}])
    def test_whose_size_nobody_tells(self, made_up, known):
        for name, value in known.items():
            setattr(made_up, name, value)
        limit_device_memory(50 * MB, self.DEVICE)
        assert made_up.fraction == 0.25

    def test_below_the_context(self, made_up):
        with pytest.raises(MemoryError, match=r"what a CUDA context holds \(10 MB\)"):
            limit_device_memory(10 * MB, self.DEVICE)
        assert made_up.fraction == 1.0

    def test_follows_a_context_that_grows(self, made_up):
        limit_device_memory(30 * MB, self.DEVICE)
        made_up.context += 10 * MB
        calibrate_device_limit_again()
        assert made_up.fraction == 0.125

    def test_that_a_context_grows_beyond(self, made_up):
        limit_device_memory(30 * MB, self.DEVICE)
        made_up.context += 20 * MB
        with pytest.raises(MemoryError, match="is below what a CUDA context holds"):
            calibrate_device_limit_again()

    def test_is_not_taken_again_where_there_is_none(self, made_up):
        calibrate_device_limit_again()
        assert made_up.fraction == 1.0

    def test_never_raises_a_cap_that_stands(self, made_up):
        made_up.fraction = 0.125
        for limit in (30, 200):
            limit_device_memory(limit * MB, self.DEVICE)
            assert made_up.fraction == 0.125

    def test_counts_the_reserved_peak_and_the_context(self, made_up):
        made_up.peak = 15 * MB
        assert charged_peak_bytes("cuda:1") == 25 * MB

    def test_needs_the_caching_allocator(self, monkeypatch):
        monkeypatch.setenv("PYTORCH_NO_CUDA_MEMORY_CACHING", "1")
        with pytest.raises(XbenchError, match="PYTORCH_NO_CUDA_MEMORY_CACHING is set"):
            limit_device_memory(50 * MB, self.DEVICE)
