"""What makes two cells the same: everything that can change a result, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from xbench.components.registry import origin
from xbench.execution.inspection import Machine
from xbench.training.settings import CellSettings


def cell_id(
    settings: CellSettings, fingerprint: str, machine: Machine, conditions: Sequence[Any] = ()
) -> str:
    """Hash of a cell's settings, data, device class, threads, and the versions of torch and of the packages
    that its model and optimizer come from; not of titles, nor of limits that all cells of a run have.

    Args:
        conditions: of its own under which it runs.
    """
    identity = {
        "model": [settings.model.name, origin("model", settings.model.name), settings.model.params],
        "optimizer": [
            settings.optimizer.name,
            origin("optimizer", settings.optimizer.name),
            settings.optimizer.params,
        ],
        "training": settings.training.model_dump(exclude={"threads"}),
        "threads": settings.training.threads or machine.threads,
        "storage": settings.storage,
        "seed": settings.seed,
        "data": fingerprint,
        "device": [machine.device_facts["type"], machine.device_facts["name"]],
        "torch": machine.versions["torch"],
        "conditions": list(conditions),
    }
    canonical = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
