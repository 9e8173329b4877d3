"""What malloc keeps of freed blocks, in processes of their own."""

from __future__ import annotations

import ctypes

import phase_jobs as jobs
import pytest

from xbench.isolation.child import Limits
from xbench.isolation.run import run_in_child

MB = jobs.MB
BLOCKS = 60
# A block or two may lie in a gap that the heap had before.
NEXT_TO_NOTHING = 3 * MB

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallopt"), reason="this is not glibc's malloc"
)


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
