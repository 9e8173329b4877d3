"""Inputs of the child process that trains or measures a cell."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from xbench.components.code_files import ImportDirs
from xbench.data.features import FeatureFile
from xbench.data.prepared import PreparedData
from xbench.training.settings import CellSettings


@dataclass(frozen=True)
class CellJob:
    """Everything that a child process needs to train a cell, or to measure it.

    Attributes:
        import_dirs: folders that `module:attribute` components may be imported from.
        features: cached outputs of the model's frozen part, to train on instead of the model's inputs: for
            all examples that are used, or, for a measurement, for some of them.
        code: hashes of the code that identifies the cell (see `training.component_code`); () for any code.
        scratch: folder for the selected weights and for checkpoints.
        checkpoint_every_s: minimum seconds between two checkpoints; None for no checkpoints. There are none
            in any case if the model or the optimizer is not resumable.
        is_trial: whether the cell is a trial of a search, which is not scored in the end.
        checkpoint: folder of a checkpoint of the same cell to resume from; an unusable one is ignored.
    """

    settings: CellSettings
    data: PreparedData
    import_dirs: ImportDirs = field(default_factory=ImportDirs)
    features: FeatureFile | None = None
    code: tuple[str, ...] = ()
    scratch: Path = Path()
    checkpoint_every_s: float | None = None
    checkpoint: Path | None = None
    is_trial: bool = False
