"""xbench: which optimizer, on your model, data and hardware: how good, how fast, how much memory.

The names here are what a plugin needs; everything else is reached through the `xbench` command.
"""

from xbench.components.specs import Dataset, DatasetSpec, Example, ModelSpec, OptimizerSpec
from xbench.errors import DataNotFound, XbenchError

__all__ = [
    "DataNotFound",
    "Dataset",
    "DatasetSpec",
    "Example",
    "ModelSpec",
    "OptimizerSpec",
    "XbenchError",
]
