"""Open a cell's data in its process: the task, and the loader of its batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from xbench.components.classification import classification
from xbench.components.specs import ModelSpec
from xbench.components.tasks import Task
from xbench.data.decoded import DecodedDataset
from xbench.data.features import FeatureFile
from xbench.data.prepared import PreparedData, RowData
from xbench.errors import XbenchError
from xbench.training.loader import FeatureLoader, ImageLoader, Loader, ResidentImageLoader
from xbench.training.objective import Objective
from xbench.training.row_loader import RowLoader
from xbench.training.row_set import RowSet, load_row_set
from xbench.training.settings import CellSettings


def open_task(data: PreparedData, import_dirs: Sequence[str] = ()) -> Task:
    """Return the task of a dataset: that of its factory, or the classification of its images.

    Raises:
        XbenchError: the dataset's factory returns other rows than before.
    """
    if isinstance(data, DecodedDataset):
        return classification(data.classes, data.positive)
    if not isinstance(data, RowData):
        raise TypeError(f"no task for a {type(data).__name__}")
    return open_row_set(data, import_dirs).task


def open_row_set(data: RowData, import_dirs: Sequence[str]) -> RowSet:
    """Make the rows of a dataset again, in this process.

    Raises:
        XbenchError: the dataset's factory returns other rows than before.
    """
    rows = load_row_set(data.name, data.params, import_dirs)
    if rows.checksum() != data.checked:
        raise XbenchError(
            f"dataset '{data.name}' returns other rows than when the run was planned: its factory must seed "
            "every random number that it draws, and sort the files that it lists",
        )
    return rows


def open_loader(
    settings: CellSettings,
    data: PreparedData,
    spec: ModelSpec,
    features: FeatureFile | None,
    import_dirs: Sequence[str] = (),
) -> Loader:
    """Open the loader of a cell's batches: of features if there are any, otherwise of the data itself."""
    training, device = settings.training, torch.device(settings.device)
    dtype = of_features = getattr(torch, training.dtype)
    if features is not None and training.keeps_feature_dtype:
        of_features = getattr(torch, features.precision)
    if isinstance(data, RowData):
        loader = (
            None if features is None else FeatureLoader(data, features, device, of_features, "contiguous")
        )
        row_dtype = getattr(torch, training.loss_dtype)
        return RowLoader(open_row_set(data, import_dirs), data, device, row_dtype, loader)
    if not isinstance(data, DecodedDataset):
        raise TypeError(f"no loader for a {type(data).__name__}")
    memory_format = training.memory_format_on(settings.device)
    if features is not None:
        return FeatureLoader(data, features, device, of_features, memory_format)
    loader_type = ResidentImageLoader if settings.storage == "float32" else ImageLoader
    return loader_type(data, spec, device, dtype, memory_format)


def run_on_first_row(
    model: nn.Module, data: RowData, import_dirs: Sequence[str] = (), dtype: torch.dtype | None = None
) -> None:
    """Run a model on the first row of a dataset without images, which initialises lazy parameters.

    Args:
        dtype: of the row's floating-point tensors; None for torch's default.
    """
    rows, cpu = open_row_set(data, import_dirs), torch.device("cpu")
    dtype = dtype or torch.get_default_dtype()
    objective = Objective(rows.task, data, {}, cpu, dtype)
    first = np.zeros(1, dtype=np.int64)
    part = RowLoader(rows, data, cpu, dtype).load(first)
    with torch.set_grad_enabled(rows.task.differentiates):
        objective.part_loss(model, part, objective.divisor(first))
