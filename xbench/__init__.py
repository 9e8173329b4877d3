"""xbench: which optimizer, on your model, data and hardware: how good, how fast, how much memory.

The names here are what a plugin needs; everything else is reached through the `xbench` command.
"""

from importlib.metadata import version

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

__version__ = version("xbench")

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
