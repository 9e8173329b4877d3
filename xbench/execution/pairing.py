"""Check that all cells of an experiment and seed start with the same weights and order of examples."""

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
    """A cell starts from other weights or examples than another cell of its experiment and seed."""


@dataclass(frozen=True)
class _Start:
    """The start of a cell: its weights, its order of examples, and where the weights were drawn."""

    cell: str
    drawn_on: str
    weights_sha256: str
    order_sha256: str


class Pairing:
    """Comparison of the starts of cells.

    Args:
        records: records of cells that ran in earlier processes.
    """

    def __init__(self, records: Iterable[CellRecord] = ()):
        self._starts: dict[str, _Start] = {}
        for record in records:
            if record.pairing.weights_sha256:
                self._starts.setdefault(pairing_group_of(record), _read_start(record, record.pairing))

    def compare(self, cell: PlannedCell, prepared: Prepared) -> str:
        """Compare a cell with the first one of its group. The cells of a group have the same model, data,
        dtype, train_size, balance and validation.

        Returns:
            How the cells differ, if that may be due to rounding, because the weights were drawn on another
            processor or with another number of threads; "" if they do not differ.

        Raises:
            Unpaired: the cells differ for another reason.
        """
        new = _Start(
            f"{cell.declared.column}, seed {cell.declared.seed}",
            name_generator(cell),
            prepared.weights_sha256,
            prepared.order_sha256,
        )
        first = self._starts.setdefault(pairing_group(cell, prepared.ran), new)
        differing = [
            name
            for name, ours, theirs in (
                ("initial weights", new.weights_sha256, first.weights_sha256),
                ("order of examples", new.order_sha256, first.order_sha256),
            )
            if ours != theirs
        ]
        if not differing:
            return ""
        difference = f"its {' and '.join(differing)} differ from those of {first.cell}"
        if new.drawn_on != first.drawn_on:
            return f"{difference}, which were drawn on {first.drawn_on}"
        raise Unpaired(
            f"{difference}, so the two cannot be compared",
            hint="check whether the model uses its own random generator or reads data that changes",
        )


def name_generator(cell: PlannedCell) -> str:
    """Name the processor and the number of threads that draw a cell's initial weights."""
    threads = cell.settings.training.threads or cell.machine.threads
    return f"{cell.machine.hardware.get('cpu')} ({pluralize(threads, 'thread')})"


def _read_start(record: CellRecord, pairing: PairingRecord) -> _Start:
    cell = f"{record.column}, seed {record.seed}"
    return _Start(cell, pairing.drawn_on, pairing.weights_sha256, pairing.order_sha256)
