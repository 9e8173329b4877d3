"""Jobs that allocate known amounts, where nothing else does."""

from __future__ import annotations

import numpy as np

from xbench.memory.host import host_peak_meter, resident_bytes
from xbench.memory.malloc import malloc_profile
from xbench.memory.phases import PhaseMeter

MB = 1_000_000


def touched(megabytes: int) -> np.ndarray:
    """An array whose every page is resident."""
    return np.ones(megabytes * MB, dtype=np.uint8)


def bracketed_step(send, gradients, activations, held_between, update, closures=1):
    """A step of that many megabytes each, whose old gradients stand when it begins.

    Args:
        held_between: what the optimizer takes after each closure and keeps to the end of the step.
        update: what it takes on top, after the last closure, and frees.
    """
    touched(1)  # what numpy does at first use is no part of the step
    standing = [touched(gradients)]
    phases = PhaseMeter(host_peak_meter(), gradients * MB)
    held = []
    for _ in range(closures):
        standing.clear()
        phases.begin_closure()
        inner = touched(activations)
        standing.append(touched(gradients))
        del inner
        phases.end_closure()
        held.append(touched(held_between))
    touched(update)
    return phases.end(gradients * MB, batch_bytes=0, loaded_bytes=0)


def kept_of_freed_blocks(send, megabytes):
    """The profile, and what stays resident of freed blocks of a megabyte."""
    touched(1)
    return malloc_profile(), _left_by(megabytes)


def _left_by(megabytes):
    """What freeing every second of many blocks, and then the others, leaves resident."""
    before = resident_bytes()
    blocks = [touched(1) for _ in range(megabytes)]
    full = resident_bytes() - before
    assert full > 0.9 * megabytes * MB
    del blocks[::2]
    del blocks
    return resident_bytes() - before
