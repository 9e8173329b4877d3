"""Compare PyTorch optimizers on your model, data and hardware: their accuracy, speed and memory.

The names here are all that a plugin needs; everything else is reached through the `xbench` command.
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
