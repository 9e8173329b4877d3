"""Hostile suites through `xbench run FILE --dry-run`: each is refused with a clear message, or is a plan.

    python -m tests.fuzz.fuzz_suites --count 10000 [--seed N] [--real 40]

To be fast, the whole command runs in this process as far as the finished plan, with the jobs of its children
called directly. `--real` sends so many through processes of their own, to the end.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import hypothesis

from tests.fuzz.suite_mutations import BY_CHANCE, ROOT, Attempt, documents, written

HYPOTHESIS = "hypothesis"
KINDS = (*BY_CHANCE, HYPOTHESIS)

# What one suite may take here; a real one has seconds of starting besides.
MAX_S, MAX_REAL_S = 20, 150
MAX_BYTES = 3 << 30
_NAME = "suite.toml"
# A mistake says in which line it is, or in which argument.
_TOLD = re.compile(
    r"error: (suite\.toml:(\d+(:| \(with --)| and more)|--[a-z]"
    r"|suite\.toml: (larger|not valid TOML|only the first))|  hint: "
)


class TooSlow(BaseException):
    """No part of the command may catch it."""


@dataclass
class Tally:
    """What became of the suites of one kind.

    Attributes:
        bad: the suites that ended in another way than a clear refusal or a plan, with what came out.
    """

    tried: int = 0
    refused: int = 0
    valid: int = 0
    longest_s: float = 0.0
    bad: list[tuple[Attempt, str]] = field(default_factory=list)


def complaint_about(code: Any, err: str) -> str:
    """What is wrong with how a command ended; empty if nothing is."""
    if "Traceback" in err:
        return err
    if code not in (0, 2):
        return f"exit code {code}\n{err}"
    unsafe = {c for c in err if c != "\n" and unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")}
    if unsafe or "\u202e" in err:
        return f"characters that a terminal obeys: {err!r}"
    if len(err) > 200_000:
        return f"{len(err)} characters of messages"
    lines = err.splitlines()
    if code == 2 and not lines:
        return "refused without a word"
    if code == 2 and lines[0].startswith("error: "):
        return "\n".join(line for line in lines if not _TOLD.match(line))
    return ""


def called_here(
    job: Callable[..., Any], *args: Any, on_message: Callable[[Any], None] = lambda message: None, **_: Any
) -> Any:
    """`run_in_child` without the child."""
    from xbench.errors import XbenchError
    from xbench.isolation.run import ChildResult
    from xbench.memory.exhaustion import evidence_of, exhaustion

    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return ChildResult("returned", value=job(on_message, *args))
    except XbenchError as error:
        return ChildResult("refused", error=error, reason=error.message)
    except Exception as error:
        how = exhaustion(evidence_of(error))
        stderr = "" if how else traceback.format_exc()
        return ChildResult("failed", reason=str(error), exhaustion=how, stderr=stderr)


def _finished(plan: Any, observer: Any, started: float) -> None:
    """In place of estimates: what a record would be made of, and the end."""
    from xbench.planning.identity import cell_id
    from xbench.training.settings import CellSettings

    for cell, resolved in list(zip(plan.cells, plan.data, strict=True))[:50]:
        plan.limit_of(cell)
        settings = CellSettings(cell.model, cell.optimizer, cell.training, cell.seed, "cpu")
        planned = SimpleNamespace(
            machine=plan.machine, import_dirs=plan.import_dirs, resolved=resolved, data=None
        )
        cell_id(planned, settings, data="")
    if not plan.cells:
        raise AssertionError("a plan without a cell")
    raise SystemExit(0)


@contextlib.contextmanager
def in_this_process() -> Iterator[None]:
    """Let commands stay in this process, in a folder of its own, with little memory."""
    import xbench.execution.run
    import xbench.isolation.ask
    import xbench.isolation.server
    import xbench.planning.machine
    from xbench.isolation.run import ChildResult
    from xbench.memory.host import status_bytes
    from xbench.planning.machine import describe_machine
    from xbench.units import DeviceChoice

    machine = describe_machine(lambda message: None, DeviceChoice("cpu"))

    def answer(job: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if job is describe_machine and args[0].kind != "cuda":
            return ChildResult("returned", value=machine)
        return called_here(job, *args, **options)

    before, place = resource.getrlimit(resource.RLIMIT_DATA), os.getcwd()
    most = status_bytes("VmData", Path("/proc/self/status").read_bytes()) + MAX_BYTES
    with (
        mock.patch.object(xbench.isolation.ask, "run_in_child", answer),
        mock.patch.object(xbench.planning.machine, "run_in_child", answer),
        mock.patch.object(xbench.execution.run, "preview", _finished),
        mock.patch.object(xbench.isolation.server, "start_server", lambda: None),
        tempfile.TemporaryDirectory() as folder,
    ):
        os.chdir(folder)
        resource.setrlimit(resource.RLIMIT_DATA, (most, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, before)
            os.chdir(place)


def _alarm(*_: Any) -> None:
    raise TooSlow


def try_here(attempt: Attempt, tally: Tally) -> None:
    """Run one suite through the command in this process; see `in_this_process`."""
    from xbench.cli import main

    Path(_NAME).write_bytes(attempt.content)
    err, code = io.StringIO(), None
    began = time.monotonic()
    before = signal.signal(signal.SIGALRM, _alarm)
    signal.setitimer(signal.ITIMER_REAL, MAX_S)
    argv = ["xbench", "run", _NAME, "--dry-run", *attempt.arguments]
    try:
        with mock.patch.object(sys, "argv", argv), contextlib.redirect_stderr(err):
            main()
    except SystemExit as ended:
        code = ended.code
    except (Exception, TooSlow):
        err.write(traceback.format_exc())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    _note(attempt, tally, code, err.getvalue(), time.monotonic() - began)


def try_really(attempt: Attempt, tally: Tally) -> None:
    """Run one suite through a process of its own, estimates included."""
    Path(_NAME).write_bytes(attempt.content)
    began = time.monotonic()
    command = [sys.executable, "-m", "xbench", "run", _NAME, "--dry-run", *attempt.arguments]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=MAX_REAL_S,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (2 * MAX_BYTES, 2 * MAX_BYTES)),
        )
        code, err = done.returncode, done.stderr.decode(errors="replace")
    except subprocess.TimeoutExpired:
        code, err = None, "Traceback: too slow"
    _note(attempt, tally, code, err, time.monotonic() - began)


def _note(attempt: Attempt, tally: Tally, code: Any, err: str, took_s: float) -> None:
    tally.tried += 1
    tally.longest_s = max(tally.longest_s, took_s)
    complaint = complaint_about(code, err)
    if complaint:
        tally.bad.append((attempt, complaint))
    elif code == 2:
        tally.refused += 1
    else:
        tally.valid += 1


def fuzz(
    count: int, seed: int, attempt_one: Callable[[Attempt, Tally], None], limit_s: float = float("inf")
) -> dict[str, Tally]:
    """Try about so many suites, of all kinds alike; the same ones for the same seed.

    Args:
        limit_s: after so long no more are begun.
    """
    tallies = {kind: Tally() for kind in KINDS}
    each = max(1, count // len(KINDS))
    end = time.monotonic() + limit_s
    makers = {kind: (make, random.Random(f"{seed} {kind}")) for kind, make in BY_CHANCE.items()}
    for _ in range(each):
        for kind, (make, rng) in makers.items():
            if time.monotonic() < end:
                with _deep_recursion():
                    attempt = make(rng)
                attempt_one(attempt, tallies[kind])

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=each,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(documents)
    def of_documents(document: dict[str, Any]) -> None:
        if time.monotonic() < end:
            attempt_one(Attempt(written(document)), tallies[HYPOTHESIS])

    of_documents()
    return tallies


@contextlib.contextmanager
def _deep_recursion() -> Iterator[None]:
    """For writing what is nested deeper than anybody would nest it; xbench itself is tried without."""
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(10 * usual)
    try:
        yield
    finally:
        sys.setrecursionlimit(usual)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", type=int, default=0, help="so many through processes of their own")
    parser.add_argument("--limit-s", type=float, default=float("inf"), help="seconds for each of the two")
    parser.add_argument("--keep", type=Path, help="folder for the suites that went wrong")
    options = parser.parse_args()
    with in_this_process():
        tallies = fuzz(options.count, options.seed, try_here, options.limit_s)
    rows = [(kind, tally) for kind, tally in tallies.items()]
    if options.real:
        place = os.getcwd()
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            real = fuzz(options.real, options.seed + 1, try_really, options.limit_s)
            os.chdir(place)
        rows += [(f"{kind}, real", tally) for kind, tally in real.items()]
    print(f"{'kind':<26} {'tried':>6} {'exit 2':>7} {'valid':>6} {'bad':>4} {'longest':>8}")
    for kind, tally in rows:
        counts = f"{tally.tried:>6} {tally.refused:>7} {tally.valid:>6} {len(tally.bad):>4}"
        print(f"{kind:<26} {counts} {tally.longest_s:>6.1f} s")
    bad = [(kind, *item) for kind, tally in rows for item in tally.bad]
    for place, (kind, attempt, complaint) in enumerate(bad):
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            (options.keep / f"{place}.toml").write_bytes(attempt.content)
            (options.keep / f"{place}.txt").write_text(f"{kind} {attempt.arguments!a}\n{complaint}\n")
        if place < 5:
            print(f"\n--- {kind} {attempt.arguments!a:.300}\n{complaint[-1500:]}")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
