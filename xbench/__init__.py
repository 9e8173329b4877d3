"""Compare PyTorch optimizers on your model, data and hardware: their accuracy, speed and memory.

`run`, `probe` and `load` do what the commands `run`, `probe-capacity` and `show` do. `register_model`,
`register_optimizer`, `register_dataset` and `register_problem` let them use components of a script or a
notebook. The other names are for plugins.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xbench.api.results import Results, load
    from xbench.api.run import probe, run
    from xbench.components.classification import classification
    from xbench.components.facts import Facts, Output
    from xbench.components.image_dataset import Dataset, Example
    from xbench.components.metric import Metric
    from xbench.components.next_token import next_token_task
    from xbench.components.registered import (
        register_dataset,
        register_model,
        register_optimizer,
        register_problem,
    )
    from xbench.components.regression import regression
    from xbench.components.search_range import SearchRange
    from xbench.components.specs import (
        DatasetSpec,
        Family,
        ModelSpec,
        OptimizerSpec,
        Scale,
        Source,
    )
    from xbench.components.tasks import BatchReader, Optimum, Problem, RowDataset, Task, Term
    from xbench.errors import DataNotFound, Mistakes, Unsupported, WeightsNotFound, XbenchError
    from xbench.memory.exhaustion import raise_if_exhausted

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
    "SearchRange",
    "Source",
    "Task",
    "Term",
    "Unsupported",
    "WeightsNotFound",
    "XbenchError",
    "classification",
    "load",
    "next_token_task",
    "probe",
    "raise_if_exhausted",
    "register_dataset",
    "register_model",
    "register_optimizer",
    "register_problem",
    "regression",
    "run",
]

# Imported when they are first used: worker processes and the command line import this package as well.
_MODULES = {
    "xbench.api.results": ("Results", "load"),
    "xbench.api.run": ("probe", "run"),
    "xbench.components.classification": ("classification",),
    "xbench.components.image_dataset": ("Dataset", "Example"),
    "xbench.components.next_token": ("next_token_task",),
    "xbench.components.registered": (
        "register_dataset",
        "register_model",
        "register_optimizer",
        "register_problem",
    ),
    "xbench.components.facts": ("Facts", "Output"),
    "xbench.components.metric": ("Metric",),
    "xbench.components.regression": ("regression",),
    "xbench.components.search_range": ("SearchRange",),
    "xbench.components.specs": (
        "DatasetSpec",
        "Family",
        "ModelSpec",
        "OptimizerSpec",
        "Scale",
        "Source",
    ),
    "xbench.components.tasks": (
        "BatchReader",
        "Optimum",
        "Problem",
        "RowDataset",
        "Task",
        "Term",
    ),
    "xbench.errors": ("DataNotFound", "Mistakes", "Unsupported", "WeightsNotFound", "XbenchError"),
    "xbench.memory.exhaustion": ("raise_if_exhausted",),
}
_LAZY = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version  # importing it takes longer than the rest of this module

        return version("xbench")
    if name not in _LAZY:
        raise AttributeError(f"module 'xbench' has no attribute '{name}'")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
