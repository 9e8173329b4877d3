"""How far a training run is, and which epoch's weights it keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from xbench.records.schema import EpochRecord


def selection_criterion(selection: str, record: EpochRecord) -> float:
    """Return the loss that selection minimises; infinite for an epoch whose weights are not kept.

    Args:
        selection: the name of the loss, or `"last"` for the last epoch's weights.
        record: the epoch's metrics.
    """
    value = None if selection == "last" else record.values.get(selection)
    return math.inf if value is None or math.isnan(value) else value


@dataclass
class Progress:
    """Progress of a training run.

    Attributes:
        epoch: the current epoch, from 1.
        in_epoch: number of steps done in this epoch.
        steps, examples, closures: numbers of steps, of examples drawn, and of evaluations of loss and
            gradient in total.
        losses: losses of this epoch's steps.
        selected: the epoch whose weights are kept; 0 if there is none yet.
        least: the criterion of the selected epoch.
    """

    epoch: int = 1
    in_epoch: int = 0
    steps: int = 0
    examples: int = 0
    closures: int = 0
    losses: list[float] = field(default_factory=list)
    selected: int = 0
    least: float = math.inf
