"""Faults by the hundred, in a table:

    python -m tests.faults.table --count 200 [--seed N] [--only KIND]...

Exits with 1 if anything was lost or left, and names the folders in which it can be looked at.
"""

from __future__ import annotations

import argparse
import sys
import time
from random import Random

from rich.console import Console
from rich.table import Table

from tests.faults.fault_chain import Chain, Tally, undisturbed
from tests.faults.fault_damage import DAMAGE
from tests.faults.faults import HINDERED, KILL, LIVE

# So many faults happen in one folder; then there is another.
_CHAIN = 25

# Of all faults, at least this share is a SIGKILL.
_KILLS = 0.3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", default=[], help="kinds whose name holds this")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin nothing after so long")
    options = parser.parse_args()
    random, console = Random(options.seed), Console(width=150)
    kinds = [
        kind
        for kind in (*LIVE, *HINDERED, *DAMAGE)
        if not options.only or any(word in kind.name for word in options.only)
    ]
    tallies: dict[str, Tally] = {}
    began, injected, left_by_kills, number = time.monotonic(), 0, 0, 0

    def told(name: str, found: list[str]) -> None:
        console.print(f"{injected:4} {name:28} {'ok' if not found else ''}", markup=False, highlight=False)
        for text in found:
            console.print(f"     {text}", markup=False, highlight=False)

    reference = undisturbed()
    while injected < options.count and time.monotonic() - began < options.minutes * 60:
        number += 1
        chain = Chain(random.randrange(1 << 32), reference, told)
        last = min(injected + _CHAIN, options.count)
        while injected < last and time.monotonic() - began < options.minutes * 60:
            is_kill = not options.only and random.random() < _KILLS
            injected += chain.meet(KILL if is_kill else random.choice(kinds))
        chain.finish()
        left_by_kills += chain.left_by_kills
        for name, tally in chain.tallies.items():
            total = tallies.setdefault(name, Tally())
            for key, value in vars(tally).items():
                setattr(total, key, getattr(total, key) + value)
        console.print(_table(tallies))
    console.print(f"{injected} faults in {number} chains, {time.monotonic() - began:.0f} s")
    console.print(f"{left_by_kills} folders of sockets were left by commands that were killed")
    found = [text for tally in tallies.values() for text in (*tally.wrong, *tally.problems)]
    for text in found:
        console.print(text, markup=False, highlight=False)
    return 1 if found else 0


def _table(tallies: dict[str, Tally]) -> Table:
    table = Table("fault", "injected", "declared", "right", "lost or doubled", "problems")
    for name, tally in sorted(tallies.items()):
        counts = (tally.injected, tally.declared, tally.right, len(tally.wrong), len(tally.problems))
        table.add_row(name, *map(str, counts))
    return table


if __name__ == "__main__":
    sys.exit(main())
