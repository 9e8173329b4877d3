"""Compute a cell's ID: a hash of every input that can change its result, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from xbench.components.code import code_stamp, own_stamp
from xbench.components.code_files import ImportDirs
from xbench.components.registry import Kind, origin
from xbench.execution.inspection import Machine
from xbench.training.settings import CellSettings, Choice

# What results depend on, beside the packages of components. Of Python the whole version: as for any package,
# a release that mends a fault may change what code computes. CUDA and cuDNN have none on a CPU.
_VERSIONS = ("xbench", "python", "torch", "torchvision", "numpy", "cuda", "cudnn")


def cell_id(
    settings: CellSettings,
    fingerprint: str,
    machine: Machine,
    import_dirs: ImportDirs,
    conditions: Sequence[Any] = (),
) -> str:
    """Hash a cell's settings, data, device, threads and allocator settings, and the versions of all code that
    its process runs.

    The processor's model is not part of the hash, so that a run can go on on another machine. A GPU's model
    is, as it has kernels of its own. What a machine has to give is not part of it.

    Args:
        import_dirs: where its `module:attribute` components are.
        conditions: what else distinguishes the cell, its column among it.
    """
    device = machine.device_facts
    identity = {
        "model": _component("model", settings.model, import_dirs),
        "optimizer": _component("optimizer", settings.optimizer, import_dirs),
        "training": settings.training.model_dump(exclude={"threads"}),
        "threads": settings.training.threads or machine.threads,
        "storage": settings.storage,
        "seed": settings.seed,
        "data": fingerprint,
        "device": [device["type"], *([] if device["type"] == "cpu" else [device["name"]])],
        "allocator": machine.allocator,
        "versions": {name: machine.versions.get(name) for name in _VERSIONS},
        "code": own_stamp(),
        "conditions": list(conditions),
    }
    canonical = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _component(kind: Kind, choice: Choice, import_dirs: ImportDirs) -> list[Any]:
    code = [origin(kind, choice.name), code_stamp(kind, choice.name, import_dirs)]
    return [choice.name, *code, choice.params]
