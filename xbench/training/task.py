"""What a child process is told of a cell."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from xbench.components.code_files import ImportDirs
from xbench.data.decoded import DecodedDataset
from xbench.data.features import FeatureFile
from xbench.training.settings import CellSettings


@dataclass(frozen=True)
class Task:
    """All that a child process needs to train a cell, or to measure it.

    Attributes:
        import_dirs: folders that `module:attribute` components may be imported from.
        features: outputs of the model's frozen part, to train on in its place: of all images that are used,
            or for a measurement of some.
        code: hashes of the code by which the cell is known; see `training.component_code`. () for any.
        scratch: folder for the selected weights and for checkpoints.
        checkpoint_every_s: the least time between two checkpoints; None for none. A model or an optimizer
            that is not resumable has none in any case.
        checkpoint: folder of a checkpoint of the same cell to go on from; one that cannot be used is passed
            over.
    """

    settings: CellSettings
    data: DecodedDataset
    import_dirs: ImportDirs = field(default_factory=ImportDirs)
    features: FeatureFile | None = None
    code: tuple[str, ...] = ()
    scratch: Path = Path()
    checkpoint_every_s: float | None = None
    checkpoint: Path | None = None
