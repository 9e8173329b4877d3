"""Compare what the cells of an experiment and seed start from: the same weights, and the same examples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from xbench.errors import XbenchError
from xbench.planning.identity import pairing_group, pairing_group_of
from xbench.planning.planned import PlannedCell
from xbench.records.schema import CellRecord, PairingRecord
from xbench.text import pluralize
from xbench.training.events import Prepared


class Unpaired(XbenchError):
    """A cell does not start from where another one of its experiment and seed does."""


@dataclass(frozen=True)
class _Start:
    """Where a cell started, and what drew its weights."""

    cell: str
    drawn_on: str
    weights_sha256: str
    order_sha256: str


class Pairing:
    """The starts of all cells so far.

    Args:
        records: of cells that ran in earlier processes.
    """

    def __init__(self, records: Iterable[CellRecord] = ()):
        self._starts: dict[str, _Start] = {}
        for record in records:
            if record.pairing.weights_sha256:
                self._starts.setdefault(pairing_group_of(record), _start(record, record.pairing))

    def compare(self, cell: PlannedCell, prepared: Prepared) -> str:
        """Compare a cell with the first of its group, in which model, data, dtype, train_size, balance and
        validation agree.

        Returns:
            How they differ, where that may be rounding: on another processor, or with other threads.

        Raises:
            Unpaired: they differ.
        """
        new = _Start(
            f"{cell.declared.column}, seed {cell.declared.seed}",
            name_generator(cell),
            prepared.weights_sha256,
            prepared.order_sha256,
        )
        first = self._starts.setdefault(pairing_group(cell, prepared.ran), new)
        what = [
            name
            for name, ours, theirs in (
                ("initial weights", new.weights_sha256, first.weights_sha256),
                ("order of examples", new.order_sha256, first.order_sha256),
            )
            if ours != theirs
        ]
        if not what:
            return ""
        said = f"its {' and '.join(what)} differ from those of {first.cell}"
        if new.drawn_on != first.drawn_on:
            return f"{said}, which were drawn on {first.drawn_on}"
        raise Unpaired(
            f"{said}: the comparison would not be a paired one",
            hint="does the model draw from a generator of its own, or read what changes from run to run?",
        )


def name_generator(cell: PlannedCell) -> str:
    """What draws a cell's initial weights, whatever it trains on."""
    threads = cell.settings.training.threads or cell.machine.threads
    return f"{cell.machine.hardware.get('cpu')} ({pluralize(threads, 'thread')})"


def _start(record: CellRecord, pairing: PairingRecord) -> _Start:
    cell = f"{record.column}, seed {record.seed}"
    return _Start(cell, pairing.drawn_on, pairing.weights_sha256, pairing.order_sha256)
