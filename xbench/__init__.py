"""Compare PyTorch optimizers on your model, data and hardware: their accuracy, speed and memory.

The names here are all that a plugin needs; everything else is reached through the `xbench` command.
"""

from __future__ import annotations

from xbench.components.specs import (
    Dataset,
    DatasetSpec,
    Example,
    Family,
    ModelSpec,
    OptimizerSpec,
    Source,
)
from xbench.errors import DataNotFound, WeightsNotFound, XbenchError

__all__ = [
    "DataNotFound",
    "Dataset",
    "DatasetSpec",
    "Example",
    "Family",
    "ModelSpec",
    "OptimizerSpec",
    "Source",
    "WeightsNotFound",
    "XbenchError",
]


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version  # importing it takes longer than the rest of this module

        return version("xbench")
    raise AttributeError(f"module 'xbench' has no attribute '{name}'")
