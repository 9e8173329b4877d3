"""What makes two cells the same: everything that can change a result, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from xbench.components.code import code_stamp, own_stamp
from xbench.components.registry import Kind, origin
from xbench.execution.inspection import Machine
from xbench.training.settings import CellSettings, Choice

# What results depend on, beside the packages of components.
_VERSIONS = ("xbench", "torch", "torchvision", "numpy")


def cell_id(
    settings: CellSettings,
    fingerprint: str,
    machine: Machine,
    import_dirs: tuple[str, ...],
    conditions: Sequence[Any] = (),
) -> str:
    """Hash of a cell's settings, data, device class, threads, and the versions of all code that its process
    runs; not of titles, nor of what a machine has to give.

    Args:
        import_dirs: where its `module:attribute` components are.
        conditions: of its own under which it runs.
    """
    identity = {
        "model": _component("model", settings.model, import_dirs),
        "optimizer": _component("optimizer", settings.optimizer, import_dirs),
        "training": settings.training.model_dump(exclude={"threads"}),
        "threads": settings.training.threads or machine.threads,
        "storage": settings.storage,
        "seed": settings.seed,
        "data": fingerprint,
        "device": [machine.device_facts["type"], machine.device_facts["name"]],
        "versions": {name: machine.versions[name] for name in _VERSIONS},
        "code": own_stamp(),
        "conditions": list(conditions),
    }
    canonical = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _component(kind: Kind, choice: Choice, import_dirs: tuple[str, ...]) -> list[Any]:
    code = [origin(kind, choice.name), code_stamp(kind, choice.name, import_dirs)]
    return [choice.name, *code, choice.params]
