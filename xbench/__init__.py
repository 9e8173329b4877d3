"""Compare PyTorch optimizers on your model, data and hardware: their accuracy, speed and memory.

`run`, `probe` and `load` do what the commands `run`, `probe-capacity` and `show` do. `register_model`,
`register_optimizer` and `register_dataset` let them use components of a script or a notebook. The other names
are for plugins.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from xbench.components.specs import (
    Dataset,
    DatasetSpec,
    Example,
    Family,
    ModelSpec,
    OptimizerSpec,
    Source,
)
from xbench.errors import DataNotFound, Mistakes, WeightsNotFound, XbenchError

if TYPE_CHECKING:
    from xbench.api.results import Results, load
    from xbench.api.run import probe, run
    from xbench.components.registered import register_dataset, register_model, register_optimizer

__all__ = [
    "DataNotFound",
    "Dataset",
    "DatasetSpec",
    "Example",
    "Family",
    "Mistakes",
    "ModelSpec",
    "OptimizerSpec",
    "Results",
    "Source",
    "WeightsNotFound",
    "XbenchError",
    "load",
    "probe",
    "register_dataset",
    "register_model",
    "register_optimizer",
    "run",
]

# Imported when they are first used: plugins and worker processes import this package as well, and need none.
_LAZY = {
    "Results": "xbench.api.results",
    "load": "xbench.api.results",
    "probe": "xbench.api.run",
    "register_dataset": "xbench.components.registered",
    "register_model": "xbench.components.registered",
    "register_optimizer": "xbench.components.registered",
    "run": "xbench.api.run",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version  # importing it takes longer than the rest of this module

        return version("xbench")
    if name not in _LAZY:
        raise AttributeError(f"module 'xbench' has no attribute '{name}'")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
