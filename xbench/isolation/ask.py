"""Call functions in child processes, and return their results or raise their errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from xbench.isolation.child import Limits
from xbench.isolation.run import ChildFailed, Timeouts, run_in_child
from xbench.memory.limits import can_limit_host_memory
from xbench.memory.machine import binding, host_bounds
from xbench.units import format_bytes

# The least that a child may use. It holds about half a gigabyte before it does any work.
_MIN_BYTES = 1 << 30


def ask(
    job: Callable[..., Any],
    *args: Any,
    on_message: Callable[[Any], None] = lambda message: None,
    timeouts: Timeouts | None = None,
) -> Any:
    """Run `job(send, *args)` in a child and return its result. The child may use all available memory.

    Raises:
        ChildFailed: the child failed, died or was killed.
        XbenchError: the job raised it.
    """
    limit = max(_MIN_BYTES, binding(host_bounds()).limit_bytes) if can_limit_host_memory() else None
    limits = Limits(memory_bytes=limit)
    ending = run_in_child(job, *args, on_message=on_message, limits=limits, timeouts=timeouts)
    if ending.out_of_memory:
        available = f"the {format_bytes(limit)} available" if limit else "is available"
        # The traceback would add nothing.
        raise ChildFailed(replace(ending, stderr=""), f"it needs more memory than {available}")
    return ending.get()


def ask_each(
    job: Callable[..., Any], items: Sequence[Any], *args: Any, timeouts: Timeouts | None = None
) -> list[Any]:
    """Run `job(send, items, *args)` in a child and return the messages that it sends, one per item, in order.

    If the job fails at an item, the `ChildFailed` is that item's answer, and another child continues with the
    next item.
    """
    answers: list[Any] = []
    while len(answers) < len(items):
        try:
            ask(job, items[len(answers) :], *args, on_message=answers.append, timeouts=timeouts)
        except ChildFailed as failure:
            if len(answers) < len(items):  # otherwise it failed after its last answer
                answers.append(failure)
    return answers
