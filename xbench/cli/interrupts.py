"""End a command on Ctrl-C, SIGTERM or SIGHUP: clean up, print one sentence and exit with code 130."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from xbench.cli import EXIT_INTERRUPTED
from xbench.cli.output import stderr_console
from xbench.isolation.interrupts import interrupt_on_signals
from xbench.report.layout import print_line


@contextmanager
def interruptible(outcome: Callable[[], str] = str) -> Iterator[None]:
    """Turn an interrupt into a sentence on stderr and exit code 130.

    The signal handlers stay installed afterwards, so that the rest of the command can be interrupted as well.

    Args:
        outcome: called after an interrupt; returns what happened to the work, or "" to say nothing.

    Raises:
        typer.Exit: the command was interrupted.
    """
    interrupt_on_signals()
    try:
        yield
    except KeyboardInterrupt:
        raise report_interrupt(outcome()) from None


def report_interrupt(outcome: str = "") -> typer.Exit:
    """Print that the command was interrupted, and return what ends it.

    Args:
        outcome: what happened to the work; "" for nothing.
    """
    print_line(stderr_console(), "; ".join(filter(None, ["interrupted", outcome])), "yellow")
    return typer.Exit(EXIT_INTERRUPTED)
