"""Write and read a model's outputs on the test split: a Parquet file with one row per example.

From these files, statistics of the test split (confidence intervals that resample patients, tests that pair
two optimizers example by example) can be computed later without training again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xbench.records.tables import read_table, write_table

if TYPE_CHECKING:
    import numpy as np

_LOGIT = "logit_"


@dataclass(frozen=True)
class Outputs:
    """Outputs of the model with its selected weights on the n test examples, in the order of the dataset.

    Attributes:
        classes: class names, in the order of labels.
        names: (n) example names, unique within the dataset.
        labels: (n,) int64 true classes.
        groups: (n) names of groups, such as patients; "" for an example that belongs to no group.
        losses: (n,) float64 cross entropies in nats, without class weights.
        logits: (n, classes) float64 logits.
    """

    classes: Sequence[str]
    names: Sequence[str]
    labels: np.ndarray
    groups: Sequence[str]
    losses: np.ndarray
    logits: np.ndarray


def write_outputs(path: Path, outputs: Outputs) -> None:
    """Write outputs as the columns `name`, `label`, `group`, `loss` and one `logit_<class>` per class.

    Raises:
        OSError: the file cannot be written; an existing one is left unchanged.
    """
    import pyarrow

    columns = [
        ("name", pyarrow.array(outputs.names, pyarrow.string())),
        ("label", pyarrow.array(outputs.labels, pyarrow.int64())),
        ("group", pyarrow.array(outputs.groups, pyarrow.string())),
        ("loss", pyarrow.array(outputs.losses, pyarrow.float64())),
        *(
            (_LOGIT + name, pyarrow.array(column, pyarrow.float64()))
            for name, column in zip(outputs.classes, outputs.logits.T, strict=True)
        ),
    ]
    write_table(path, pyarrow.table([column for _, column in columns], [name for name, _ in columns]))


def read_outputs(path: Path, crc32: int | None = None) -> Outputs:
    """Read a file of outputs.

    Args:
        crc32: see `read_table`.

    Raises:
        OSError, ValueError: the file is missing or damaged, or has other columns.
    """
    import numpy as np

    table = read_table(path, crc32)
    names, columns = table.column_names, table.columns
    if names[:4] != ["name", "label", "group", "loss"] or not all(n.startswith(_LOGIT) for n in names[4:]):
        raise ValueError(f"{path} does not have the columns of outputs: {', '.join(names)}")
    return Outputs(
        classes=tuple(name.removeprefix(_LOGIT) for name in names[4:]),
        names=tuple(columns[0].to_pylist()),
        labels=columns[1].to_numpy(),
        groups=tuple(columns[2].to_pylist()),
        losses=columns[3].to_numpy(),
        logits=np.stack([column.to_numpy() for column in columns[4:]], axis=1),
    )
