"""Compare PyTorch optimizers on your model, data and hardware: their accuracy, speed and memory.

`run`, `probe` and `load` do what the commands `run`, `probe-capacity` and `show` do. `register_model`,
`register_optimizer`, `register_dataset` and `register_problem` let them use components of a script or a
notebook. The other names are for plugins.
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
    Scale,
    Source,
)
from xbench.components.tasks import (
    BatchReader,
    Facts,
    Metric,
    Optimum,
    Output,
    Problem,
    RowDataset,
    Task,
    Term,
)
from xbench.errors import DataNotFound, Mistakes, WeightsNotFound, XbenchError

if TYPE_CHECKING:
    from xbench.api.results import Results, load
    from xbench.api.run import probe, run
    from xbench.components.classification import classification
    from xbench.components.registered import (
        register_dataset,
        register_model,
        register_optimizer,
        register_problem,
    )

__all__ = [
    "BatchReader",
    "DataNotFound",
    "Dataset",
    "DatasetSpec",
    "Example",
    "Facts",
    "Family",
    "Metric",
    "Mistakes",
    "ModelSpec",
    "OptimizerSpec",
    "Optimum",
    "Output",
    "Problem",
    "Results",
    "RowDataset",
    "Scale",
    "Source",
    "Task",
    "Term",
    "WeightsNotFound",
    "XbenchError",
    "classification",
    "load",
    "probe",
    "register_dataset",
    "register_model",
    "register_optimizer",
    "register_problem",
    "run",
]

# Imported when they are first used: plugins and worker processes import this package as well, and need none.
_LAZY = {
    "classification": "xbench.components.classification",
    "Results": "xbench.api.results",
    "load": "xbench.api.results",
    "probe": "xbench.api.run",
    "register_dataset": "xbench.components.registered",
    "register_model": "xbench.components.registered",
    "register_optimizer": "xbench.components.registered",
    "register_problem": "xbench.components.registered",
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
