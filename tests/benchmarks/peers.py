"""Who finds the largest batch that trains under a memory limit: xbench's search, its peers, and the truth.

    pip install 'xbench[peers]'
    python -m tests.benchmarks.peers [--only cnn] [--headroom 1GiB] [--json FILE]

The truth is an exhaustive bisection in which every trial is a fresh process. All searches run in children of
one fork server, with the same settings of malloc (freed blocks go back to the system, so that what a search
tried before does not weigh on what it tries next), and with the same room: a hard limit of the headroom above
what stands after the model was built and stepped once with one example. A peer searches within one child,
which has imported it and stepped once before its limit is set and its clock starts, so that neither the time
nor the memory of its libraries counts against it. Run it alone: other processes slow some rows and not
others.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks.workloads import WORKLOADS, Workload
from xbench.capacity.probe import find_capacity
from xbench.errors import XbenchError
from xbench.isolation.child import Limits
from xbench.isolation.run import ChildResult, run_in_child
from xbench.isolation.server import start_server
from xbench.memory.host import resident_bytes
from xbench.memory.limits import calibrate_host_limit_again, limit_host_memory
from xbench.memory.peaks import release_all
from xbench.units import format_bytes, format_seconds, parse_bytes

EDGE_REPEATS = 3
ACCELERATE_STARTS = (8192, 8 * 8192, 64 * 8192)
ROWS = 1 << 20  # of Lightning's data: an epoch must outlast three steps of the largest batch it tries


@dataclass(frozen=True)
class Search:
    """How one search went.

    Attributes:
        method: who searched.
        trials: the sizes that it ran, in order.
        found: its answer; None if it failed.
        seconds: as a user waits, the start of its processes included.
        note: what a reader must know.
    """

    method: str
    trials: tuple[int, ...]
    found: int | None
    seconds: float
    note: str = ""


# Jobs of children.


def stepped_bytes(send, workload: Workload) -> int:
    run = workload.prepare()
    run(1)
    release_all("cpu")
    return resident_bytes()


def run_size(send, workload: Workload, size: int) -> None:
    run = workload.prepare()
    run(1)
    release_all("cpu")
    calibrate_host_limit_again()
    run(size)


def search_as_peer(send, module: str, search: Callable, workload: Workload, headroom: int, *options) -> int:
    """Let a peer search within this process. Sends the seconds and bytes of its import, then its trials."""
    before, started = resident_bytes(), time.perf_counter()
    importlib.import_module(module)
    send(("imported", time.perf_counter() - started, resident_bytes() - before))
    started = time.perf_counter()
    run = workload.prepare()
    run(1)
    release_all("cpu")
    limit_host_memory(resident_bytes() + headroom)  # while the model stands: the base counts it
    del run
    send(("ready", time.perf_counter() - started))
    return search(lambda size: send(("trial", size)), workload, *options)


def accelerate_search(on_trial: Callable[[int], None], workload: Workload, start: int) -> int:
    from accelerate import find_executable_batch_size

    def train(batch_size: int) -> int:
        on_trial(batch_size)
        workload.prepare()(batch_size)  # built anew within the function, as accelerate's guide has it
        return batch_size

    return find_executable_batch_size(train, starting_batch_size=start)()


def lightning_search(on_trial: Callable[[int], None], workload: Workload, mode: str, options: dict) -> int:
    import tempfile

    import lightning.pytorch as pl
    from lightning.pytorch.tuner import Tuner
    from torch.utils.data import DataLoader

    class Rows:
        """Row numbers alone: the step makes the inputs, so that a batch is in memory once, as elsewhere."""

        def __len__(self) -> int:
            return ROWS

        def __getitems__(self, rows: list[int]) -> list[int]:
            return rows

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = workload.build()
            self.batch_size = 2
            self.automatic_optimization = False  # the step is the same code as elsewhere

        def configure_optimizers(self):
            return workload.optimizer(self.model)

        def train_dataloader(self) -> DataLoader:
            return DataLoader(Rows(), batch_size=self.batch_size, collate_fn=len)

        def on_train_start(self) -> None:
            on_trial(self.batch_size)

        def training_step(self, batch: int, number: int) -> None:
            workload.train_step(self.model, self.optimizers(), batch)

    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu",
            default_root_dir=folder,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        # `max_val` is the only default that is always changed: it would cap every answer at 8192.
        return Tuner(trainer).scale_batch_size(Module(), mode=mode, max_val=ROWS, **options)


# Searches, each as a user would call it.


def bisect(workload: Workload, limits: Limits) -> Search:
    """Double until a size fails, then halve the bracket until nothing is between."""
    started = time.perf_counter()
    trials: list[int] = []

    def tried(size: int) -> bool:
        trials.append(size)
        return fits(workload, size, limits)

    low, high = 0, 1
    while tried(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if tried(middle) else (low, middle)
    return Search("exhaustive bisection", tuple(trials), low, time.perf_counter() - started)


def fits(workload: Workload, size: int, limits: Limits) -> bool:
    """Whether a fresh child runs a size."""
    ending = run_in_child(run_size, workload, size, limits=limits)
    if ending.outcome != "returned" and not ending.out_of_memory:
        raise SystemExit(f"{workload.name}, batch {size}: {ending.reason}\n{ending.stderr}")
    return ending.outcome == "returned"


def peer(method: str, module: str, search: Callable, workload: Workload, headroom: int, *options) -> Search:
    """Run a peer's search in a child; what it does with an error is part of its result."""
    trials: list[int] = []
    set_up: list[float] = []
    notes: list[str] = []

    def on_message(message: tuple) -> None:
        kind, value, *rest = message
        if kind == "trial":
            trials.append(value)
            return
        set_up.append(value)
        if kind == "imported":
            notes.append(f"import not counted: {format_seconds(value)}, {format_bytes(rest[0])}")

    started = time.perf_counter()
    ending: ChildResult = run_in_child(
        search_as_peer,
        module,
        search,
        workload,
        headroom,
        *options,
        on_message=on_message,
        limits=Limits(malloc="exact"),
    )
    seconds = time.perf_counter() - started - sum(set_up)
    if ending.outcome != "returned":
        return Search(method, tuple(trials), None, seconds, f"failed at {trials[-1:]}: {ending.reason}")
    if ending.value not in trials:
        notes.insert(0, "its answer was never run")
    return Search(method, tuple(trials), ending.value, seconds, "; ".join(notes))


def accelerate(workload: Workload, headroom: int) -> Iterator[Search]:
    """From a higher start for as long as the answer is the start: it can only shrink."""
    for start in ACCELERATE_STARTS:
        search = peer(f"accelerate, from {start}", "accelerate", accelerate_search, workload, headroom, start)
        yield search
        if search.found != start:
            return


def lightning(workload: Workload, headroom: int) -> Iterator[Search]:
    """Both modes as they come, and the bisection without the 5% that it takes off its answer by default."""
    variants = (
        ("Lightning, power", "power", {}),
        ("Lightning, binsearch", "binsearch", {}),
        ("Lightning, binsearch, margin 0", "binsearch", {"margin": 0.0}),
    )
    for name, mode, options in variants:
        yield peer(name, "lightning.pytorch", lightning_search, workload, headroom, mode, options)


def own(workload: Workload, limits: Limits) -> Search:
    trials: list[int] = []
    found, started = None, time.perf_counter()
    try:
        capacity = find_capacity(workload, limits, on_trial=lambda trial: trials.append(trial.value))
        found, note = capacity.found, f"{capacity.fails} ran out of memory"
    except XbenchError as error:  # its error is its result, as with a peer
        note = f"failed: {error.message}"
    return Search("xbench", tuple(trials), found, time.perf_counter() - started, note)


def all_searches(workload: Workload, headroom: int, limits: Limits) -> Iterator[Search]:
    """The truth first."""
    yield bisect(workload, limits)
    yield own(workload, limits)
    yield from accelerate(workload, headroom)
    yield from lightning(workload, headroom)


# One workload after the other.


def compare(workload: Workload, headroom: int) -> dict:
    """All searches on one workload, as JSON has them."""
    base = max(_stepped(workload) for _ in range(EDGE_REPEATS))
    limits = Limits(memory_bytes=base + headroom, malloc="exact")
    searches: list[Search] = []
    for search in all_searches(workload, headroom, limits):
        print(
            f"{workload.name}: {search.method}: {search.found}, {format_seconds(search.seconds)}",
            file=sys.stderr,
        )
        searches.append(search)
    truth = searches[0]
    edge = {
        size: [fits(workload, size, limits) for _ in range(EDGE_REPEATS)]
        for size in (truth.found, truth.found + 1)
    }
    rows = [asdict(search) | judged(search, truth, workload, limits) for search in searches]
    return {
        "workload": workload.name,
        "base_bytes": base,
        "limit_bytes": limits.memory_bytes,
        "edge": edge,
        "searches": rows,
    }


def _stepped(workload: Workload) -> int:
    ending = run_in_child(stepped_bytes, workload, limits=Limits(malloc="exact"))
    if ending.outcome != "returned":
        raise SystemExit(f"{workload.name}: {ending.reason}\n{ending.stderr}")
    return ending.value


def judged(search: Search, truth: Search, workload: Workload, limits: Limits) -> dict:
    """How an answer compares to the true one, and whether a fresh child runs it."""
    if not search.found:
        return {"found_over_true": None, "verified": None}
    return {
        "found_over_true": search.found / truth.found,
        "verified": fits(workload, search.found, limits),
    }


def print_comparison(result: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    limit, base = format_bytes(result["limit_bytes"]), format_bytes(result["base_bytes"])
    table = Table(title=f"{result['workload']}: limit {limit}, of which {base} are its base")
    table.add_column("")
    for name in ("trials", "found", "found/true", "verified", "time"):
        table.add_column(name, justify="right")
    for row in result["searches"]:
        found = row["found"]
        table.add_row(
            row["method"],
            str(len(row["trials"])),
            str(found) if found else "-",
            f"{row['found_over_true']:.3f}" if found else "-",
            {True: "yes", False: "NO", None: "-"}[row["verified"]],
            format_seconds(row["seconds"]),
        )
    console = Console()
    console.print(table)
    for row in result["searches"]:
        if row["note"]:
            console.print(f"  {row['method']}: {row['note']}", markup=False, soft_wrap=True)
    (largest, ran), (above, ran_above) = result["edge"].items()
    if not all(ran) or any(ran_above):
        console.print(
            f"  The edge is noisy: {largest} ran in {sum(ran)} of {len(ran)} fresh children, "
            f"{above} in {sum(ran_above)} of {len(ran_above)}."
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=[workload.name for workload in WORKLOADS])
    parser.add_argument("--headroom", type=parse_bytes, default="1GiB", help="above the base (default: 1GiB)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    arguments = parser.parse_args()
    start_server()
    results = []
    for workload in WORKLOADS:
        if arguments.only in (None, workload.name):
            results.append(compare(workload, arguments.headroom))
            print_comparison(results[-1])
            if arguments.json:  # after each: each takes minutes
                arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
