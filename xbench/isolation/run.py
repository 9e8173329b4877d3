"""Run a job in a child process and report how it ended."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Literal

from xbench.errors import XbenchError
from xbench.isolation.child import Failure, Limits, child_main
from xbench.isolation.interrupts import HeldSignals, Interrupts
from xbench.isolation.liveness import HangWatch, Liveness
from xbench.isolation.log import Log
from xbench.isolation.messages import Inbox
from xbench.isolation.server import (
    address_space_limit,
    can_start,
    server_context,
    server_log,
    start_server,
    too_little_address_space,
)
from xbench.isolation.worker import WorkerProcess
from xbench.memory.cgroups import oom_kill_count
from xbench.memory.exhaustion import (
    Evidence,
    Exhaustion,
    describe_exhaustion,
    exhaustion,
    failed_allocation_bytes,
)
from xbench.units import format_seconds

# How long a child may send no message and take no CPU time.
HANGS_AFTER_S = 300.0

_EXIT_GRACE_S = 10.0

# How many servers may be killed while one child is started, and how long it takes to notice that one is dead.
_MAX_SERVERS, _DYING_S = 3, 0.1


# The final message of a child, or ("timeout", reason) in its place.
Final = tuple[str, Any]


@dataclass(frozen=True)
class Timeouts:
    """How long to wait for a child, in seconds. None means no limit.

    Attributes:
        timeout_s: time until it must end.
        silence_s: time that it may send no message.
        hangs_after_s: time that it may send no message and take no CPU time. None is meant for a child that
            may wait for another process.
    """

    timeout_s: float | None = None
    silence_s: float | None = None
    hangs_after_s: float | None = HANGS_AFTER_S


class ChildFailed(XbenchError):
    """A child failed, died or was killed.

    Args:
        ending: how the child ended.
        message: replaces the default message, which gives the reason.
    """

    def __init__(self, ending: ChildResult, message: str = ""):
        if not message:
            message = f"a worker process failed: {ending.reason}"
        super().__init__(message, ending.stderr.strip() or None)
        self.ending = ending


@dataclass(frozen=True)
class ChildResult:
    """The result of a child: how it ended, and what it returned.

    Attributes:
        outcome: `returned` if the job returned a value; `refused` if it raised an XbenchError; `failed` if it
            raised another exception; `died` if the process ended without a result; `timeout` if it was
            killed because it took too long.
        value: what the job returned.
        error: the XbenchError that the job raised.
        reason: why the job did not return, on one line.
        exhaustion: how memory ran out, if that is why the child failed or died.
        failed_allocation_bytes: size of the allocation that failed; None if it is not known.
        stderr: the end of what it wrote to stderr, tracebacks included.
    """

    outcome: Literal["returned", "refused", "failed", "died", "timeout"]
    value: Any = None
    error: XbenchError | None = None
    reason: str = ""
    exhaustion: Exhaustion | None = None
    failed_allocation_bytes: int | None = None
    stderr: str = ""

    @property
    def out_of_memory(self) -> bool:
        return self.exhaustion is not None

    def get(self) -> Any:
        """Return what the job returned.

        Raises:
            ChildFailed: the child failed, died or was killed.
            XbenchError: the job raised it.
        """
        if self.outcome == "returned":
            return self.value
        if self.error is not None:
            raise self.error
        raise ChildFailed(self)


def run_in_child(
    job: Callable[..., Any],
    *args: Any,
    on_message: Callable[[Any], None] = lambda message: None,
    stderr_path: Path | None = None,
    limits: Limits | None = None,
    timeouts: Timeouts | None = None,
    interrupts: Interrupts | None = None,
) -> ChildResult:
    """Run `job(send, *args)` in a child of the fork server and wait for it.

    Args:
        job: a module-level function.
        on_message: called with each message that the job sends, in order.
        stderr_path: file that receives the child's stdout and stderr; by default, a temporary file.
        limits: device, threads and memory of the child.
        timeouts: how long to wait for the child; by default, until it ends or hangs.
        interrupts: interrupts of this process, for a job that ends by itself on SIGTERM. The first interrupt
            is sent to the child as SIGTERM, and the child is waited for.

    Returns:
        How the child ended. Any other interrupt of this process ends the child and is raised here.

    Raises:
        XbenchError: the child cannot be started.
        OSError: the file for its output cannot be opened.
    """
    limits = limits or Limits()
    context = server_context()
    with _open_log(stderr_path) as log:
        with can_start():
            receiver, sender = context.Pipe(duplex=False)
            held = HeldSignals()
        kills_before = oom_kill_count()
        # If an interrupt loses the handle of a child here, that child ends by itself.
        process = _start((job, args, sender, log, limits))
        sender.close()
        with held, receiver, Liveness(process) as liveness:  # on exit, the child is killed
            inbox = Inbox(receiver)
            listener = _Listener(inbox, liveness, held, on_message, timeouts or Timeouts(), interrupts)
            final = listener.listen()
            if final is None or final[0] != "timeout":
                wait([liveness.sentinel, held.fileno()], _EXIT_GRACE_S)  # a thread may keep it from exiting
        stderr = log.tail()
    ending = _make_result(final, process.exitcode or 0, stderr, kills_before, limits)
    if ending.outcome in ("failed", "died") and not listener.is_ready and address_space_limit():
        raise too_little_address_space(ending.reason)
    return ending


def _make_result(
    final: Final | None, exit_code: int, stderr: str, kills_before: int, limits: Limits
) -> ChildResult:
    if final is None:
        evidence = Evidence(
            exit_code=exit_code,
            stderr=stderr,
            oom_kills=oom_kill_count() - kills_before,
            under_limit=limits.memory_bytes is not None,
        )
        how = exhaustion(evidence)
        if how is None:
            return ChildResult("died", reason=_describe_death(exit_code, stderr), stderr=stderr)
        last_line = (stderr.strip().splitlines() or [""])[-1].strip()
        return ChildResult(
            "died",
            reason=describe_exhaustion(how, last_line, limits.memory_bytes, limits.device),
            exhaustion=how,
            failed_allocation_bytes=failed_allocation_bytes(last_line),
            stderr=stderr,
        )
    outcome, content = final
    if outcome == "returned":
        return ChildResult("returned", value=content, stderr=stderr)
    if outcome == "refused":
        return ChildResult("refused", error=content, reason=content.message, stderr=stderr)
    if outcome == "timeout":
        return ChildResult("timeout", reason=content, stderr=stderr)
    failure: Failure = content
    return ChildResult(
        "failed",
        reason=failure.summary,
        exhaustion=failure.exhaustion,
        failed_allocation_bytes=failure.failed_allocation_bytes,
        stderr=stderr,
    )


def _open_log(path: Path | None) -> Log:
    if path is not None:
        return Log(path)
    with can_start():
        return Log()


def _start(args: tuple) -> WorkerProcess:
    """Start a child. If the server turns out to have been killed, start another server and try again.

    Raises:
        XbenchError: every server was killed, or the system has no room for a process.
    """
    for _ in range(_MAX_SERVERS):
        start_server()
        process = WorkerProcess(target=child_main, args=args)
        try:
            with can_start():
                process.start()
            return process
        except (EOFError, ConnectionError):
            time.sleep(_DYING_S)
    lines = server_log().strip().splitlines()
    if address_space_limit():
        raise too_little_address_space(lines[-1].strip() if lines else "its process died")
    last_line = f"; last stderr line: {lines[-1]}" if lines else ""
    raise XbenchError(
        f"the server of worker processes is killed each time it is started{last_line}",
        hint="there may be too little memory, or too many processes (`ulimit -u`)",
    )


@dataclass
class _Listener:
    """A listener that forwards the messages of a child until the final one.

    Attributes:
        is_ready: whether the child has loaded torch.
    """

    inbox: Inbox
    liveness: Liveness
    held: HeldSignals
    on_message: Callable[[Any], None]
    timeouts: Timeouts
    interrupts: Interrupts | None
    is_ready: bool = False
    started: float = field(default_factory=time.monotonic)
    last_heard: float = field(default_factory=time.monotonic)

    def listen(self) -> Final | None:
        """Return the final message; None if the child ended without sending one."""
        hangs_after_s = self.timeouts.hangs_after_s
        watch = HangWatch(self.liveness, hangs_after_s) if hangs_after_s is not None else None
        was_asked = False
        while True:
            waited_for = [self.inbox.fileno(), self.liveness.sentinel, self.held.fileno()]
            if self.interrupts is not None and not was_asked:
                waited_for.append(self.interrupts.fileno())
            ready = wait(waited_for, timeout=self._seconds_to_wait(watch))
            self.held.deliver()
            if self.interrupts is not None and self.interrupts.fileno() in ready:
                self.liveness.ask_to_end()
                self.interrupts.on_first()
                was_asked = True
            has_ended = self.liveness.has_ended()  # check before reading, or its last messages may be missed
            final = None
            while final is None and self.inbox.read():
                if watch is not None:
                    watch.note_message()
                final = self._forward_messages()
                if not has_ended:
                    break  # the timeouts also apply to a child that never stops sending
            if final is not None:
                return final
            if has_ended or self.inbox.has_closed:
                return None
            for allowed_s, since, failure in self._deadlines():
                if time.monotonic() - since >= allowed_s:
                    return "timeout", f"it {failure} {format_seconds(allowed_s)}"
            if watch is not None and watch.has_hung():
                idle = format_seconds(watch.patience_s)
                return "timeout", f"it hung: it sent no message and took no CPU time for {idle}"

    def _forward_messages(self) -> Final | None:
        """Forward all complete messages, and return the final one if it has arrived."""
        self.last_heard = time.monotonic()
        while True:
            try:
                message = self.inbox.next_message()
            except Exception as error:  # such as an object whose module is not installed here
                return "failed", Failure(f"its message cannot be read: {type(error).__name__}: {error}")
            if message is None:
                return None
            kind, content = message
            if kind == "ready":
                self.is_ready = True
                continue
            if kind != "message":
                return kind, content
            self.on_message(content)

    def _deadlines(self) -> list[tuple[float, float, str]]:
        """Return each time limit in seconds, when it began, and what the child did wrong if it is over."""
        deadlines = [
            (self.timeouts.timeout_s, self.started, "did not end within"),
            (self.timeouts.silence_s, self.last_heard, "sent no message for"),
        ]
        return [
            (allowed_s, since, failure) for allowed_s, since, failure in deadlines if allowed_s is not None
        ]

    def _seconds_to_wait(self, watch: HangWatch | None) -> float | None:
        """Return the seconds until the next deadline or check; None if there is none."""
        due = [since + allowed_s for allowed_s, since, _ in self._deadlines()]
        if watch is not None:
            due.append(watch.next_check)
        return max(0.0, min(due) - time.monotonic()) if due else None


def _describe_death(exit_code: int, stderr: str) -> str:
    if exit_code < 0:
        number = -exit_code
        named = number in set(signal.Signals)  # real-time signals have no names
        how = f"killed by {signal.Signals(number).name if named else f'signal {number}'}"
    else:
        how = f"exited with code {exit_code} without a result"
    lines = stderr.strip().splitlines()
    return f"{how}; last stderr line: {lines[-1]}" if lines else how
