"""What malloc keeps of freed blocks, in processes of their own."""

from __future__ import annotations

import ctypes

import pytest

from tests.memory import phase_jobs as jobs
from xbench.isolation.child import Limits
from xbench.isolation.run import run_in_child
from xbench.memory.malloc import FAST_SETTINGS, allocator_settings

MB = jobs.MB
BLOCKS = 60
# A block or two may lie in a gap that the heap had before.
NEXT_TO_NOTHING = 3 * MB

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallopt"), reason="this is not glibc's malloc"
)


class TestAllocatorSettings:
    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch):
        for name in ("LD_PRELOAD", "GLIBC_TUNABLES", *FAST_SETTINGS):
            monkeypatch.delenv(name, raising=False)

    @pytest.mark.parametrize("device", ["cpu", "cuda"])
    def test_are_the_fast_ones_as_children_get_them(self, device):
        assert allocator_settings(device) == FAST_SETTINGS

    @pytest.mark.parametrize("name", [*FAST_SETTINGS, "MALLOC_TOP_PAD_", "LD_PRELOAD", "GLIBC_TUNABLES"])
    def test_what_the_user_sets_goes_before(self, monkeypatch, name):
        monkeypatch.setenv(name, "7")
        assert allocator_settings("cpu") == FAST_SETTINGS | {name: "7"}

    @pytest.mark.parametrize(
        "name",
        [
            *("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_NO_CUDA_MEMORY_CACHING"),
            *("CUDA_MODULE_LOADING", "CUBLAS_WORKSPACE_CONFIG", "CUBLASLT_WORKSPACE_SIZE"),
        ],
    )
    def test_those_of_cuda_count_there_alone(self, monkeypatch, name):
        monkeypatch.setenv(name, "7")
        assert allocator_settings("cpu") == FAST_SETTINGS
        assert allocator_settings("cuda") == FAST_SETTINGS | {name: "7"}


@pytest.fixture(scope="module")
def kept():
    """For each profile: what a process says that it has, and what stays resident of freed blocks."""

    def left(profile):
        limits = Limits(malloc=profile, threads=1)
        return run_in_child(jobs.kept_of_freed_blocks, BLOCKS, limits=limits).value

    return {profile: left(profile) for profile in ("fast", "exact")}


def test_profile_is_known(kept):
    assert {profile: values[0] for profile, values in kept.items()} == {"fast": "fast", "exact": "exact"}


def test_exact_keeps_nothing_freed(kept):
    assert kept["exact"][1] < NEXT_TO_NOTHING


def test_fast_keeps_what_may_be_used_again(kept):
    """The two differ, or nothing would be shown here."""
    assert kept["fast"][1] > 0.9 * BLOCKS * MB
