"""Running a job in a child and hearing how it ended."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Literal

from xbench.errors import XbenchError
from xbench.isolation.child import Failure, Limits, child_main
from xbench.isolation.server import server_context
from xbench.memory.cgroups import oom_kill_count
from xbench.memory.exhaustion import Evidence, Exhaustion, exhaustion

_STDERR_TAIL_BYTES = 2000
_EXIT_GRACE_S = 10.0


@dataclass(frozen=True)
class Ending:
    """How a child ended.

    Attributes:
        outcome: `returned` a value; `refused` with an XbenchError; `failed` with an exception; `died`.
        value: what the job returned.
        error: the XbenchError of a refusal.
        reason: in one line, why it did not return.
        exhaustion: how memory ran out, if a failure or a death was for memory.
        stderr: the end of what it wrote there, tracebacks included.
    """

    outcome: Literal["returned", "refused", "failed", "died"]
    value: Any = None
    error: XbenchError | None = None
    reason: str = ""
    exhaustion: Exhaustion | None = None
    stderr: str = ""

    @property
    def out_of_memory(self) -> bool:
        return self.exhaustion is not None


def run_in_child(
    job: Callable[..., Any],
    *args: Any,
    on_message: Callable[[Any], None] = lambda message: None,
    stderr_path: Path | None = None,
    limits: Limits | None = None,
) -> Ending:
    """Run `job(send, *args)` in a child of the fork server and wait for it.

    Args:
        job: a module-level function; what it sends reaches `on_message`, in order.
        stderr_path: file that receives the child's stdout and stderr; a temporary one by default.
        limits: threads and memory of the child.

    Returns:
        How it ended. An interrupt of this process ends the child and goes on to the caller.
    """
    if stderr_path is None:
        with tempfile.NamedTemporaryFile(prefix="xbench-", suffix=".stderr") as file:
            return run_in_child(job, *args, on_message=on_message, stderr_path=Path(file.name), limits=limits)
    limits = limits or Limits()
    context = server_context()
    receiver, sender = context.Pipe(duplex=False)
    kills_before = oom_kill_count()
    process = context.Process(target=child_main, args=(job, args, sender, str(stderr_path), limits))
    process.start()
    sender.close()
    try:
        final = _listen(process, receiver, on_message)
        process.join(_EXIT_GRACE_S)
    finally:
        process.kill()  # interrupted, `on_message` raised, or a thread keeps it from exiting
        process.join()
        receiver.close()
    stderr = _tail(stderr_path)
    if final is None:
        exit_code = process.exitcode or 0
        evidence = Evidence(
            exit_code=exit_code,
            stderr=stderr,
            oom_kills=oom_kill_count() - kills_before,
            under_limit=limits.memory_bytes is not None,
        )
        return Ending(
            "died", reason=_death(exit_code, stderr), exhaustion=exhaustion(evidence), stderr=stderr
        )
    outcome, content = final
    if outcome == "returned":
        return Ending("returned", value=content, stderr=stderr)
    if outcome == "refused":
        return Ending("refused", error=content, reason=content.message, stderr=stderr)
    failure: Failure = content
    return Ending("failed", reason=failure.summary, exhaustion=failure.exhaustion, stderr=stderr)


def call_in_child(job: Callable[..., Any], *args: Any, on_message=lambda message: None) -> Any:
    """Run a job that is expected to work, and return its value.

    Raises:
        XbenchError: the job's own, or one that says how the child failed.
    """
    ending = run_in_child(job, *args, on_message=on_message)
    if ending.outcome == "returned":
        return ending.value
    if ending.error is not None:
        raise ending.error
    detail = f"\n{ending.stderr.strip()}" if ending.stderr.strip() else ""
    raise XbenchError(f"a worker process failed: {ending.reason}{detail}")


def _listen(
    process: ForkServerProcess, receiver: Connection, on_message: Callable[[Any], None]
) -> tuple[str, Any] | None:
    """Pass messages on until the final one; None if the child ended without it."""
    while True:
        wait([receiver, process.sentinel])
        while receiver.poll():
            try:
                kind, content = receiver.recv()
            except (EOFError, OSError):
                return None  # the pipe broke, within a message perhaps: the child is dead or dying
            except Exception as error:  # an object of a plugin's, say, whose module is not here
                summary = f"what it sent cannot be read: {type(error).__name__}: {error}"
                return "failed", Failure(summary)
            if kind != "message":
                return kind, content
            on_message(content)
        if not process.is_alive():
            return None


def _death(exit_code: int, stderr: str) -> str:
    if exit_code < 0:
        number = -exit_code
        named = number in set(signal.Signals)  # real-time signals are not
        how = f"killed by {signal.Signals(number).name if named else f'signal {number}'}"
    else:
        how = f"exited with code {exit_code} without a result"
    lines = stderr.strip().splitlines()
    return f"{how}; its last words: {lines[-1]}" if lines else how


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _STDERR_TAIL_BYTES))  # a cell may have written gigabytes
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""  # the child died before it opened its log
