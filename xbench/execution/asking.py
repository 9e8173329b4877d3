"""Asking a child what a suite's components are: none of them may take the machine down before a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from xbench.errors import XbenchError
from xbench.isolation.child import Limits
from xbench.isolation.run import Patience, run_in_child
from xbench.memory.limits import can_limit_host_memory
from xbench.memory.machine import binding, host_bounds
from xbench.units import format_bytes

# A child holds about half a gigabyte before it does anything.
_LEAST_BYTES = 1 << 30


class NoAnswer(XbenchError):
    """The child failed or died.

    Attributes:
        out_of_memory: whether it was for memory.
    """

    out_of_memory = False


def ask(
    job: Callable[..., Any],
    *args: Any,
    on_message: Callable[[Any], None] = lambda message: None,
    patience: Patience | None = None,
) -> Any:
    """What a job returns that runs in a child, in no more memory than this machine can give.

    Raises:
        NoAnswer: it failed or died.
        XbenchError: the job's own.
    """
    limit = max(_LEAST_BYTES, binding(host_bounds()).limit_bytes) if can_limit_host_memory() else None
    limits = Limits(memory_bytes=limit)
    ending = run_in_child(job, *args, on_message=on_message, limits=limits, patience=patience)
    if ending.outcome == "returned":
        return ending.value
    if ending.error is not None:
        raise ending.error
    if ending.out_of_memory:
        there = f" than the {format_bytes(limit)} that there are" if limit else " than there is"
        raise out_of_memory(f"it needs more memory{there}")
    raise NoAnswer(f"its process failed: {ending.reason}", hint=ending.stderr.strip() or None)


def ask_each(
    job: Callable[..., Any], items: Sequence[Any], *args: Any, patience: Patience | None = None
) -> list[Any]:
    """What `job(items, *args)` sends: an answer for each item, in order. One at which it fails gets the
    `NoAnswer`, and another child goes on behind it."""
    answers: list[Any] = []
    while len(answers) < len(items):
        try:
            ask(job, items[len(answers) :], *args, on_message=answers.append, patience=patience)
        except NoAnswer as failure:
            answers.append(failure)
    return answers


def out_of_memory(message: str) -> NoAnswer:
    """The error of a job that had too little memory."""
    error = NoAnswer(message)
    error.out_of_memory = True
    return error
