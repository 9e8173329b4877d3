"""Build a cell's model as the suite requests it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from xbench.components.model_factory import build_network
from xbench.components.specs import ModelSpec
from xbench.data.decoded import DecodedDataset
from xbench.data.features import FeatureFile
from xbench.data.prepared import PreparedData, RowData
from xbench.errors import XbenchError
from xbench.training.frozen import find_trained_part, set_training
from xbench.training.global_state import guard_globals
from xbench.training.open_data import run_on_first_row
from xbench.training.precision import cast_model
from xbench.training.seeding import make_deterministic, pin_tf32, seed_everything
from xbench.training.settings import CellSettings


class TrainedPart(NamedTuple):
    """What a cell trains.

    Attributes:
        prefix: comes before the names of its parameters in the whole model.
    """

    model: nn.Module
    prefix: str


def build_model(
    spec: ModelSpec, settings: CellSettings, data: PreparedData, import_dirs: Sequence[str] = ()
) -> nn.Module:
    """Build the model with the seed's initial weights, on its device, in training mode.

    Parameters stay contiguous: torch's L-BFGS flattens gradients with `view`, which fails on channels-last
    ones. Channels-last inputs are enough for speed.

    Raises:
        XbenchError: the model takes images of another shape than the data's, or all of it is frozen.
    """
    if isinstance(data, DecodedDataset) and spec.input_shape not in (None, data.shape):
        raise XbenchError(
            f"model '{settings.model.name}' takes images of {spec.input_shape}, but those of {data.name} are "
            f"{data.shape}",
            hint=f"set the dataset's image_size to {(spec.input_shape or data.shape)[-1]}",
        )
    if settings.device != "cpu":
        pin_tf32(settings.training.tf32)
        if settings.training.deterministic:
            make_deterministic()
    run_once = None
    if isinstance(data, RowData):
        run_once = partial(run_on_first_row, data=data, import_dirs=import_dirs)
    with guard_globals():
        seed_everything(settings.seed_parts.weights)
        model = build_network(spec, data.facts, settings.model.params, run_once)
    model = cast_model(model, settings.device, getattr(torch, settings.training.dtype))
    find_trained_part(model)
    set_training(model)
    return model


def build_trained_part(
    spec: ModelSpec,
    settings: CellSettings,
    data: PreparedData,
    features: FeatureFile | None,
    import_dirs: Sequence[str] = (),
) -> TrainedPart:
    """Build a model; with `features`, keep only its trained part, which takes them as inputs.

    Raises:
        XbenchError: see `build_model`.
    """
    return select_trained_part(build_model(spec, settings, data, import_dirs), features)


def select_trained_part(model: nn.Module, features: FeatureFile | None) -> TrainedPart:
    """Return the model itself; with `features`, only its trained part, which takes them as inputs."""
    if features is None:
        return TrainedPart(model, "")
    name, part = find_trained_part(model)
    return TrainedPart(part, f"{name}." if part is not model else "")
