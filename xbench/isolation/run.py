"""Running a job in a child and hearing how it ended."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
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
from xbench.memory.cgroups import oom_kill_count
from xbench.memory.exhaustion import Evidence, Exhaustion, exhaustion
from xbench.units import format_seconds

# How long a child may say nothing and take no processor time.
HANGS_AFTER_S = 300.0

_EXIT_GRACE_S = 10.0

# Servers that may be killed while one child is started, and how long one takes to be seen as dead.
_SERVERS, _DYING_S = 3, 0.1


# The final message of a child, or ("timeout", why) in its place.
Final = tuple[str, Any]


@dataclass(frozen=True)
class Timeouts:
    """How long a child is waited for.

    Attributes:
        timeout_s: in all; None for ever.
        silence_s: while it says nothing; None for ever.
        hangs_after_s: while it says nothing and takes no processor time; None for ever, as for one that may
            wait for another process.
    """

    timeout_s: float | None = None
    silence_s: float | None = None
    hangs_after_s: float | None = HANGS_AFTER_S


class ChildFailed(XbenchError):
    """A child failed, died or was killed.

    Args:
        ending: how it ended.
        message: in place of one that says why.
    """

    def __init__(self, ending: ChildResult, message: str = ""):
        if not message:
            message = f"a worker process failed: {ending.reason}"
        super().__init__(message, ending.stderr.strip() or None)
        self.ending = ending


@dataclass(frozen=True)
class ChildResult:
    """How a child ended.

    Attributes:
        outcome: `returned` a value; `refused` with an XbenchError; `failed` with an exception; `died`;
            `timeout`, and was killed.
        value: what the job returned.
        error: the XbenchError of a refusal.
        reason: in one line, why it did not return.
        exhaustion: how memory ran out, if a failure or a death was for memory.
        stderr: the end of what it wrote there, tracebacks included.
    """

    outcome: Literal["returned", "refused", "failed", "died", "timeout"]
    value: Any = None
    error: XbenchError | None = None
    reason: str = ""
    exhaustion: Exhaustion | None = None
    stderr: str = ""

    @property
    def out_of_memory(self) -> bool:
        return self.exhaustion is not None

    def get(self) -> Any:
        """Return what the job returned.

        Raises:
            ChildFailed: it failed, died or was killed.
            XbenchError: the job's own.
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
        job: a module-level function; what it sends reaches `on_message`, in order.
        stderr_path: file that receives the child's stdout and stderr; a temporary one by default.
        limits: threads and memory of the child.
        timeouts: how long it is waited for; by default until it ends or hangs.
        interrupts: of this process, for a job that ends by itself when it gets a SIGTERM: the first one is
            passed on to it so, and it is waited for.

    Returns:
        How it ended. Another interrupt of this process ends the child and goes on to the caller.

    Raises:
        XbenchError: it cannot be started.
        OSError: the file for its stderr cannot be opened.
    """
    limits = limits or Limits()
    context = server_context()
    with _open_log(stderr_path) as log:
        with can_start():
            receiver, sender = context.Pipe(duplex=False)
            held = HeldSignals()
        kills_before = oom_kill_count()
        # An interrupt meanwhile loses the handle of a child, and such a child ends itself.
        process = _start(context, (job, args, sender, log, limits))
        sender.close()
        with held, receiver, Liveness(process) as liveness:  # left in any case, it ends the child
            inbox = Inbox(receiver)
            listener = _Listener(inbox, liveness, held, on_message, timeouts or Timeouts(), interrupts)
            final = listener.listen()
            if final is None or final[0] != "timeout":
                wait([liveness.sentinel, held.fileno()], _EXIT_GRACE_S)  # then a thread keeps it from exiting
        stderr = log.tail()
    ending = _ending(final, process.exitcode or 0, stderr, kills_before, limits)
    if ending.outcome in ("failed", "died") and not listener.is_ready and address_space_limit():
        raise too_little_address_space(ending.reason)
    return ending


def _ending(
    final: Final | None, exit_code: int, stderr: str, kills_before: int, limits: Limits
) -> ChildResult:
    if final is None:
        evidence = Evidence(
            exit_code=exit_code,
            stderr=stderr,
            oom_kills=oom_kill_count() - kills_before,
            under_limit=limits.memory_bytes is not None,
        )
        return ChildResult(
            "died", reason=_death(exit_code, stderr), exhaustion=exhaustion(evidence), stderr=stderr
        )
    outcome, content = final
    if outcome == "returned":
        return ChildResult("returned", value=content, stderr=stderr)
    if outcome == "refused":
        return ChildResult("refused", error=content, reason=content.message, stderr=stderr)
    if outcome == "timeout":
        return ChildResult("timeout", reason=content, stderr=stderr)
    failure: Failure = content
    return ChildResult("failed", reason=failure.summary, exhaustion=failure.exhaustion, stderr=stderr)


def _open_log(path: Path | None) -> Log:
    if path is not None:
        return Log(path)
    with can_start():
        return Log()


def _start(context: ForkServerContext, args: tuple) -> ForkServerProcess:
    """A new child. A server that was killed is found out here, and the next try starts another.

    Raises:
        XbenchError: that one does not live either, or there is no room for one.
    """
    for _ in range(_SERVERS):
        start_server()
        process = context.Process(target=child_main, args=args)
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
        hint="there may be no memory for it, or too many processes (`ulimit -u`)",
    )


@dataclass
class _Listener:
    """Passes messages of a child on until the final one.

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
        """The final message; None if the child ended without it."""
        hangs_after_s = self.timeouts.hangs_after_s
        watch = HangWatch(self.liveness, hangs_after_s) if hangs_after_s is not None else None
        was_asked = False
        while True:
            waited_for = [self.inbox.fileno(), self.liveness.sentinel, self.held.fileno()]
            if self.interrupts is not None and not was_asked:
                waited_for.append(self.interrupts.fileno())
            ready = wait(waited_for, timeout=self._wait_s(watch))
            self.held.deliver()
            if self.interrupts is not None and self.interrupts.fileno() in ready:
                self.liveness.ask_to_end()
                self.interrupts.on_first()
                was_asked = True
            has_ended = self.liveness.has_ended()  # before the last messages are read, not after
            final = None
            while final is None and self.inbox.read():
                if watch is not None:
                    watch.note_message()
                final = self._pass_on()
                if not has_ended:
                    break  # one that always speaks has its time, too
            if final is not None:
                return final
            if has_ended or self.inbox.has_closed:
                return None
            for allowed_s, since, failing in self._allowances():
                if time.monotonic() - since >= allowed_s:
                    return "timeout", f"it {failing} {format_seconds(allowed_s)}"
            if watch is not None and watch.has_hung():
                silent = format_seconds(watch.patience_s)
                return "timeout", f"it hung: for {silent} it said nothing and took no processor time"

    def _pass_on(self) -> Final | None:
        """Hand out the messages that have come whole, up to the final one."""
        self.last_heard = time.monotonic()
        while True:
            try:
                message = self.inbox.next_message()
            except Exception as error:  # an object of a plugin's, say, whose module is not here
                return "failed", Failure(f"what it sent cannot be read: {type(error).__name__}: {error}")
            if message is None:
                return None
            kind, content = message
            if kind == "ready":
                self.is_ready = True
                continue
            if kind != "message":
                return kind, content
            self.on_message(content)

    def _allowances(self) -> list[tuple[float, float, str]]:
        """What it is allowed by the clock: seconds, since when, and what it did if they are over."""
        allowances = [
            (self.timeouts.timeout_s, self.started, "did not end within"),
            (self.timeouts.silence_s, self.last_heard, "said nothing for"),
        ]
        return [
            (allowed_s, since, failing) for allowed_s, since, failing in allowances if allowed_s is not None
        ]

    def _wait_s(self, watch: HangWatch | None) -> float | None:
        """Until the next time that something is due."""
        due = [since + allowed_s for allowed_s, since, _ in self._allowances()]
        if watch is not None:
            due.append(watch.next_look)
        return max(0.0, min(due) - time.monotonic()) if due else None


def _death(exit_code: int, stderr: str) -> str:
    if exit_code < 0:
        number = -exit_code
        named = number in set(signal.Signals)  # real-time signals are not
        how = f"killed by {signal.Signals(number).name if named else f'signal {number}'}"
    else:
        how = f"exited with code {exit_code} without a result"
    lines = stderr.strip().splitlines()
    return f"{how}; its last words: {lines[-1]}" if lines else how
