"""Write and read a model's outputs on the test rows: a Parquet file with one row per example.

From these files, statistics of the test split (confidence intervals that resample patients, tests that pair
two optimizers example by example) can be computed later without training again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from xbench.records.tables import read_table, write_table

if TYPE_CHECKING:
    import numpy as np

# Columns of every file of outputs, besides those of the task.
FIXED_COLUMNS = ("name", "group", "loss")


@dataclass(frozen=True)
class Outputs:
    """Outputs of the model with its selected weights on the n test rows, in the order of the dataset.

    Attributes:
        names: (n) names of the rows, unique within the dataset.
        groups: (n) names of groups, such as patients; "" for a row that belongs to no group.
        losses: (n,) float64: the loss of each row, without the weight of its class.
        columns: (n,) arrays by name: what the task keeps of each row. A classification has `label` (int64)
            and a `logit_CLASS` (float64) for each class.
    """

    names: Sequence[str]
    groups: Sequence[str]
    losses: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)


def write_outputs(path: Path, outputs: Outputs) -> None:
    """Write outputs as the columns `name`, `group`, `loss`, and those of the task.

    Raises:
        OSError: the file cannot be written; an existing one is left unchanged.
    """
    import pyarrow

    columns = {
        "name": pyarrow.array(outputs.names, pyarrow.string()),
        "group": pyarrow.array(outputs.groups, pyarrow.string()),
        "loss": pyarrow.array(outputs.losses, pyarrow.float64()),
        **{name: pyarrow.array(column) for name, column in outputs.columns.items()},
    }
    write_table(path, pyarrow.table(list(columns.values()), list(columns)))


def read_outputs(path: Path, crc32: int | None = None) -> Outputs:
    """Read a file of outputs.

    Args:
        crc32: see `read_table`.

    Raises:
        OSError, ValueError: the file is missing or damaged, or has other columns.
    """
    table = read_table(path, crc32)
    columns = dict(zip(table.column_names, table.columns, strict=True))
    if not set(FIXED_COLUMNS) <= set(columns):
        raise ValueError(f"{path} does not have the columns of outputs: {', '.join(columns)}")
    return Outputs(
        names=tuple(columns.pop("name").to_pylist()),
        groups=tuple(columns.pop("group").to_pylist()),
        losses=columns.pop("loss").to_numpy(),
        columns={name: column.to_numpy() for name, column in columns.items()},
    )
