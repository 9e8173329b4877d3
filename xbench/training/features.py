"""Computing the features of a frozen backbone, once per image, to the cache."""

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
from xbench.data.features import FeatureFile, FeatureWriter
from xbench.errors import XbenchError
from xbench.memory.contention import ContentionWatch, typical_s
from xbench.memory.processor import processor_name
from xbench.storage.paths import cache_dir, require_space
from xbench.training.events import FeatureReport
from xbench.training.frozen import Backbone, obstacle
from xbench.training.global_state import load_component
from xbench.training.loader import ImageLoader
from xbench.training.model import build_model
from xbench.training.rounding import same_but_for_rounding
from xbench.training.seeding import pin_tf32
from xbench.training.settings import CellSettings, TrainingSettings

# Part of every key: raise it when the same backbone gives other values.
_VERSION = 1

# Images at once, whatever a cell's micro-batch: which cell comes first must not move the last digits.
_CHUNK = {"cpu": 8, "cuda": 64}
# Images by which it is checked that features may be kept, or are still those of the model.
_SAMPLE = 3
# Shares of the largest value by which features that were kept may differ from new ones.
_ROUNDING = {"float64": 1e-3, "float32": 1e-3, "bfloat16": 1e-2}
# So often what was computed is made to count; an interrupt loses no more.
_COMMIT_S = 5.0


def make_features(
    send: Callable[[Any], None],
    settings: CellSettings,
    data: DecodedDataset,
    indices: np.ndarray,
    import_dirs: Sequence[str] = (),
    at_most: int | None = None,
) -> FeatureReport:
    """A child's job: make sure that the features of some images are in the cache; sends (done, total) while
    it computes.

    Args:
        settings: of a cell; its seed gives the weights where they are not read from a file.
        indices: positions of images in the dataset.
        at_most: so many of those that are not there are computed; by default all.

    Raises:
        XbenchError: the model cannot be built.
    """
    spec = load_component("model", settings.model.name, import_dirs)
    model = build_model(spec, settings, data)
    if all(p.requires_grad for p in model.parameters()):
        return FeatureReport()
    if settings.storage == "float32":
        return FeatureReport(note='storage = "float32" keeps the images themselves in memory')
    device, dtype = torch.device(settings.device), getattr(torch, settings.training.dtype)
    if device.type == "cuda":
        pin_tf32(False)  # cells with and without it share features
    loader = ImageLoader(data, spec, device, dtype, _memory_format(settings.device))
    backbone = Backbone(model)
    folder = cache_dir() / "features" / _key(backbone, model, spec, settings, data, import_dirs)
    file = FeatureFile.find(folder)
    if file is None or not _is_of(backbone, loader, data.rows, file):
        images, _ = loader.load(np.arange(_SAMPLE) % len(data.rows))
        note = obstacle(model, images)
        if note is not None:
            return FeatureReport(note=note)
        if file is not None:
            file.remove()
        shape, precision = tuple(backbone(images).shape[1:]), settings.training.feature_precision
        if precision == "off":
            raise ValueError('features = "off" keeps none')
        file = FeatureFile(folder, shape, precision, int(data.rows.max()) + 1)
        file.make()
    missing = np.unique(indices[~file.present()[data.rows[indices]]])
    asked = missing[:at_most]
    try:
        require_space(folder, len(asked) * file.row_bytes, "keeping features")
    except XbenchError as error:
        return FeatureReport(note=error.message)
    report = FeatureReport(file=file, computed=len(asked), missing=len(missing) - len(asked))
    if not len(asked):
        return report
    started, watch = time.perf_counter(), ContentionWatch(torch.get_num_threads())
    images_s = _compute(send, backbone, loader, data.rows, file, asked)
    seconds, conditions = time.perf_counter() - started, watch.conditions(images_s)
    image_s, is_disturbed = typical_s(images_s, conditions), conditions == "disturbed"
    return replace(report, seconds=seconds, image_s=image_s, is_disturbed=is_disturbed)


def _memory_format(device: str) -> str:
    """The layout of images on a device, whatever a cell's: its features are kept for others, too."""
    return TrainingSettings().memory_format_on(device)


def _is_of(backbone: Backbone, loader: ImageLoader, rows: np.ndarray, file: FeatureFile) -> bool:
    """Whether some features that were kept are what the model gives: its code may have changed where no
    version tells of it."""
    present = np.flatnonzero(file.present()[rows])[:_SAMPLE]
    if not len(present):
        return True
    images, _ = loader.load(present)
    with file.reader(len(present)) as reader:
        stored = torch.from_numpy(reader.read(rows[present])).view(getattr(torch, file.precision))
    new = backbone(images).cpu()
    return same_but_for_rounding(new, stored.to(new.dtype), _ROUNDING[file.precision])


def _key(
    backbone: Backbone,
    model: torch.nn.Module,
    spec: ModelSpec,
    settings: CellSettings,
    data: DecodedDataset,
    import_dirs: Sequence[str],
) -> str:
    """Hash all that features depend on: the backbone's code, structure, weights and buffers, the pixels
    and their normalisation, precisions, and where, by what and by how many threads they are computed."""
    name, training = settings.model.name, settings.training
    parts = [
        _VERSION,
        [name, settings.model.params, registry.origin("model", name)],
        code_stamp("model", name, ImportDirs.of(import_dirs)),
        backbone.name,
        str(model),
        [spec.mean, spec.std],
        data.pixels_path.parent.name,
        [training.dtype, training.feature_precision],
        [torch.__version__, *_computer(settings.device), torch.get_num_threads()],
    ]
    digest = hashlib.sha256(repr(parts).encode())
    for key, value in backbone.state().items():
        digest.update(f"\0{key} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:24]


def _computer(device: str) -> tuple[str, ...]:
    """Kind and name of what computes, and on CUDA the layout of images: another one may round otherwise."""
    if torch.device(device).type == "cuda":
        return "cuda", torch.cuda.get_device_name(device), _memory_format(device)
    return "cpu", processor_name()


def _compute(
    send: Callable[[Any], None],
    backbone: Backbone,
    loader: ImageLoader,
    rows: np.ndarray,
    file: FeatureFile,
    missing: np.ndarray,
) -> list[float]:
    """Compute and keep features; returns what an image of each chunk took, in seconds."""
    images_s = []
    precision, size = getattr(torch, file.precision), _CHUNK[loader.device.type]
    with FeatureWriter(file) as writer:
        committed = time.perf_counter()
        for start in range(0, len(missing), size):
            began = time.perf_counter()
            chunk = missing[start : start + size]
            # Always as many at once, for the same rounding.
            images, _ = loader.load(np.resize(chunk, size))
            values = backbone(images)[: len(chunk)].to(precision).cpu()
            if precision is torch.bfloat16:
                values = values.view(torch.int16)
            writer.write(rows[chunk], values.numpy())
            images_s.append((time.perf_counter() - began) / size)  # a chunk takes as long if it is not full
            send((start + len(chunk), len(missing)))
            if time.perf_counter() - committed > _COMMIT_S:
                writer.commit()
                committed = time.perf_counter()
    return images_s
