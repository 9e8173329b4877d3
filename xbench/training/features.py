"""Compute the features of a frozen backbone once per example (an image or a row), and cache them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from xbench.components import registry
from xbench.components.code import code_stamp
from xbench.components.code_files import ImportDirs
from xbench.components.specs import ModelSpec
from xbench.data.decoded import DecodedDataset
from xbench.data.features import FeatureFile, FeatureWriter, Precision
from xbench.data.prepared import PreparedData, RowData
from xbench.errors import XbenchError
from xbench.memory.contention import ContentionWatch, typical_s
from xbench.memory.processor import processor_name
from xbench.storage.paths import cache_dir, require_space
from xbench.training.events import FeatureReport
from xbench.training.frozen import Backbone, find_obstacle
from xbench.training.global_state import load_component
from xbench.training.loader import ImageLoader
from xbench.training.model import build_model
from xbench.training.nested import convert
from xbench.training.open_data import open_row_set
from xbench.training.precision import autocast, in_float32, widen
from xbench.training.rounding import equal_up_to_rounding
from xbench.training.row_features import RowInputs, UnequalShapes, find_row_obstacle
from xbench.training.seeding import pin_tf32
from xbench.training.settings import CellSettings, TrainingSettings

# Loads the inputs (n, ...) of a model, for examples at (n,) positions in the dataset, to the device.
_LoadInputs = Callable[[np.ndarray], torch.Tensor]
# Computes the features (n, ...) of examples at (n,) positions, as a cell would compute them in a step.
_ComputeFeatures = Callable[[np.ndarray], torch.Tensor]

# Part of every cache key. Raise it when the same backbone gives other values.
_VERSION = 1

# Examples per forward pass, whatever a cell's micro-batch: which cell comes first must not affect rounding.
_CHUNK = {"cpu": 8, "cuda": 64}
# Examples used to check that features can be cached, or that cached ones are still those of the model.
_SAMPLE = 3
# Maximum difference of cached from new features, as a share of the largest value.
_ROUNDING = {"float64": 1e-3, "float32": 1e-3, "bfloat16": 1e-2}
# The same for a backbone that computes in bfloat16, where rounding of many layers adds up.
_ROUNDING_IN_BFLOAT16 = 5e-2
# Seconds between commits: an interrupt loses no more work than this.
_COMMIT_S = 5.0


def make_features(
    send: Callable[[Any], None],
    settings: CellSettings,
    data: PreparedData,
    indices: np.ndarray,
    import_dirs: Sequence[str] = (),
    at_most: int | None = None,
) -> FeatureReport:
    """Compute the features of some examples, unless they are cached. This runs in a child process.

    Args:
        send: called with (done, total) during the computation.
        settings: a cell's settings; the seed determines weights that are not read from a file.
        indices: positions of the examples in the dataset.
        at_most: the maximum number of missing features to compute; None for all.

    Raises:
        XbenchError: the model cannot be built.
    """
    try:
        return _make_features(send, settings, data, indices, import_dirs, at_most)
    except UnequalShapes as error:
        return FeatureReport(note=error.message)


def _make_features(
    send: Callable[[Any], None],
    settings: CellSettings,
    data: PreparedData,
    indices: np.ndarray,
    import_dirs: Sequence[str],
    at_most: int | None,
) -> FeatureReport:
    """Do what `make_features` does, unless rows differ in shape.

    Raises:
        UnequalShapes: they do, or their features.
    """
    spec = load_component("model", settings.model.name, import_dirs)
    model = build_model(spec, settings, data, import_dirs)
    if all(p.requires_grad for p in model.parameters()):
        return FeatureReport()
    if settings.storage == "float32":
        return FeatureReport(note='storage = "float32" keeps the images themselves in memory')
    training, device = settings.training, torch.device(settings.device)
    if device.type == "cuda":
        pin_tf32(False)  # cells with and without TF32 share features
    load_inputs: _LoadInputs
    if isinstance(data, RowData):
        rows, dtype = open_row_set(data, import_dirs), getattr(torch, training.loss_dtype)
        load_inputs = RowInputs(rows, data, device, dtype)
        # Checked each time: another task may have the same rows, and share the file.
        with in_float32(model):
            note = find_row_obstacle(model, rows, data, load_inputs, device, dtype)
        if note is not None:
            return FeatureReport(note=note)
    else:
        load_inputs = _open_images(data, spec, device, getattr(torch, training.dtype))
    backbone = Backbone(model)

    def compute(indices: np.ndarray) -> torch.Tensor:
        with autocast(device, training.autocast):
            return backbone(load_inputs(indices))

    folder = cache_dir() / "features" / _compute_key(backbone, model, spec, settings, data, import_dirs)
    file = FeatureFile.find(folder)
    share = _ROUNDING_IN_BFLOAT16 if training.rounds_to_bfloat16 else None
    if file is None or not _matches_model(compute, data, file, share):
        sample = np.arange(_SAMPLE) % len(data.labels)
        with in_float32(model):
            note = find_obstacle(model, convert(load_inputs(sample), next(model.parameters()).dtype))
        if note is not None:
            return FeatureReport(note=note)
        if file is not None:
            file.remove()
        features = compute(sample)
        shape, precision = tuple(features.shape[1:]), _choose_precision(training, features.dtype)
        file = FeatureFile(folder, shape, precision, int(_all_file_rows(data).max()) + 1)
        file.make()
    missing = np.unique(indices[~file.present()[data.file_rows(indices)]])
    requested = missing[:at_most]
    try:
        require_space(folder, len(requested) * file.row_bytes, "caching features")
    except XbenchError as error:
        return FeatureReport(note=error.message)
    report = FeatureReport(file=file, computed=len(requested), missing=len(missing) - len(requested))
    if not len(requested):
        return report
    started, watch = time.perf_counter(), ContentionWatch(torch.get_num_threads())
    try:
        examples_s = _compute(send, compute, device, data, file, requested)
    except UnequalShapes:
        file.remove()  # no run can use it
        raise
    seconds, conditions = time.perf_counter() - started, watch.conditions(examples_s)
    example_s, is_disturbed = typical_s(examples_s, conditions), conditions == "disturbed"
    return replace(report, seconds=seconds, example_s=example_s, is_disturbed=is_disturbed)


def _open_images(
    data: PreparedData, spec: ModelSpec, device: torch.device, dtype: torch.dtype
) -> _LoadInputs:
    if not isinstance(data, DecodedDataset):
        raise TypeError(f"no features of a {type(data).__name__}")
    loader = ImageLoader(data, spec, device, dtype, _memory_format(str(device)))
    return lambda indices: loader.load_examples(indices)


def _all_file_rows(data: PreparedData) -> np.ndarray:
    return data.file_rows(np.arange(len(data.labels)))


def _memory_format(device: str) -> str:
    """Return the layout of images on a device, whatever the cell's own: other cells share its features."""
    return TrainingSettings().memory_format_on(device)


def _choose_precision(training: TrainingSettings, computed: torch.dtype) -> Precision:
    """Choose the precision of a new file of features, given the dtype in which they are computed."""
    precision = training.feature_precision
    if precision == "auto":
        return "bfloat16" if computed is torch.bfloat16 else "float32"
    if precision == "off":
        raise ValueError('features = "off" caches no features')
    return precision


def _matches_model(
    compute: _ComputeFeatures, data: PreparedData, file: FeatureFile, share: float | None = None
) -> bool:
    """Return whether a sample of the cached features matches the model.

    The model's code may have changed in a way that the cache key does not show.

    Args:
        share: the maximum difference, as a share of the largest value; by default, that of the precision.
    """
    present = np.flatnonzero(file.present()[_all_file_rows(data)])[:_SAMPLE]
    if not len(present):
        return True
    with file.reader(len(present)) as reader:
        stored = reader.read(data.file_rows(present))
    old = torch.from_numpy(stored).view(getattr(torch, file.precision))
    new = widen(compute(present).cpu())
    return equal_up_to_rounding(new, old.to(new.dtype), share or _ROUNDING[file.precision])


def _compute_key(
    backbone: Backbone,
    model: torch.nn.Module,
    spec: ModelSpec,
    settings: CellSettings,
    data: PreparedData,
    import_dirs: Sequence[str],
) -> str:
    """Hash everything that features depend on.

    This is the backbone's code, structure, weights and buffers; the pixels and their normalisation, or the
    rows; the precisions; and the torch version, processor and number of threads.
    """
    name, training = settings.model.name, settings.training
    parts = [
        _VERSION,
        [name, settings.model.params, registry.origin("model", name)],
        code_stamp("model", name, ImportDirs.of(import_dirs)),
        backbone.name,
        str(model),
        [spec.mean, spec.std],
        data.pixels_path.parent.name if isinstance(data, DecodedDataset) else data.fingerprint,
        [training.dtype, training.feature_precision, *_name_autocast(training)],
        [torch.__version__, *_identify_processor(settings.device), torch.get_num_threads()],
    ]
    digest = hashlib.sha256(repr(parts).encode())
    for key, value in backbone.state().items():
        digest.update(f"\0{key} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:24]


def _name_autocast(training: TrainingSettings) -> list[str]:
    """Return what autocast adds to a cache key: nothing if it is off, so that older features stay valid."""
    return [] if training.autocast == "off" else [f"autocast {training.autocast}"]


def _identify_processor(device: str) -> tuple[str, ...]:
    """Return the processor's type and name, and on CUDA the image layout: others may round differently."""
    if torch.device(device).type == "cuda":
        return "cuda", torch.cuda.get_device_name(device), _memory_format(device)
    return "cpu", processor_name()


def _compute(
    send: Callable[[Any], None],
    compute: _ComputeFeatures,
    device: torch.device,
    data: PreparedData,
    file: FeatureFile,
    missing: np.ndarray,
) -> list[float]:
    """Compute and cache features; return the seconds per example for each chunk.

    Raises:
        UnequalShapes: rows or their features differ in shape.
    """
    examples_s = []
    precision, size = getattr(torch, file.precision), _CHUNK[device.type]
    with FeatureWriter(file) as writer:
        committed = time.perf_counter()
        for start in range(0, len(missing), size):
            began = time.perf_counter()
            chunk = missing[start : start + size]
            # Always a full chunk, so that rounding is the same.
            values = compute(np.resize(chunk, size))[: len(chunk)].to(precision).cpu()
            if values.shape[1:] != file.shape:
                raise UnequalShapes("features differ in shape")
            if precision is torch.bfloat16:
                values = values.view(torch.int16)
            writer.write(data.file_rows(chunk), values.numpy())
            examples_s.append((time.perf_counter() - began) / size)  # a partial chunk takes as long
            send((start + len(chunk), len(missing)))
            if time.perf_counter() - committed > _COMMIT_S:
                writer.commit()
                committed = time.perf_counter()
    return examples_s
