"""Ask children for what they return, or for the error that is in the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from xbench.isolation.child import Limits
from xbench.isolation.run import ChildFailed, Timeouts, run_in_child
from xbench.memory.limits import can_limit_host_memory
from xbench.memory.machine import binding, host_bounds
from xbench.units import format_bytes

# A child holds about half a gigabyte before it does anything.
_MIN_BYTES = 1 << 30


def ask(
    job: Callable[..., Any],
    *args: Any,
    on_message: Callable[[Any], None] = lambda message: None,
    timeouts: Timeouts | None = None,
) -> Any:
    """Return what `job(send, *args)` returns in a child, which may take as much memory as this machine has.

    Raises:
        ChildFailed: the child failed, died or was killed.
        XbenchError: the job's own.
    """
    limit = max(_MIN_BYTES, binding(host_bounds()).limit_bytes) if can_limit_host_memory() else None
    limits = Limits(memory_bytes=limit)
    ending = run_in_child(job, *args, on_message=on_message, limits=limits, timeouts=timeouts)
    if ending.out_of_memory:
        there = f"the {format_bytes(limit)} that there are" if limit else "there is"
        # Its traceback says no more.
        raise ChildFailed(replace(ending, stderr=""), f"it needs more memory than {there}")
    return ending.get()


def ask_each(
    job: Callable[..., Any], items: Sequence[Any], *args: Any, timeouts: Timeouts | None = None
) -> list[Any]:
    """Return what `job(send, items, *args)` sends: an answer for each item, in order.

    If the job fails at an item, the `ChildFailed` is that item's answer, and another child goes on with the
    next one.
    """
    answers: list[Any] = []
    while len(answers) < len(items):
        try:
            ask(job, items[len(answers) :], *args, on_message=answers.append, timeouts=timeouts)
        except ChildFailed as failure:
            if len(answers) < len(items):  # else it failed after its last answer
                answers.append(failure)
    return answers
