"""What only a child may find out: importing components loads torch, plugins and the user's own code."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from xbench.components import registry
from xbench.components.code import code_stamp
from xbench.components.code_files import ImportDirs
from xbench.components.registry import Kind
from xbench.components.settings import Settings, settings_of
from xbench.components.specs import Dataset, DatasetSpec, ModelSpec, OptimizerSpec
from xbench.data.decode import decode, is_decoded
from xbench.data.decoded import DecodedDataset
from xbench.data.listing import listing_folders
from xbench.data.sample import sampled
from xbench.errors import WeightsNotFound, XbenchError
from xbench.memory.exhaustion import evidence_of, exhaustion
from xbench.memory.machine import Bound, device_bounds, host_bounds
from xbench.memory.malloc import allocator_settings
from xbench.memory.processor import processor_name
from xbench.training.settings import Choice

_MOST_CLOSURES = 200

Send = Callable[[Any], None]


@dataclass(frozen=True)
class DatasetFacts:
    """What a dataset's factory tells without reading an image.

    Attributes:
        counts: images by `"SPLIT/CLASS"`.
        shape: (channels, height, width).
        folders: of its files.
        is_listed: whether these are all that it depends on.
    """

    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    counts: dict[str, int]
    stand_in: str
    folders: tuple[str, ...] = ()
    is_listed: bool = True


@dataclass(frozen=True)
class ModelFacts:
    """What a model is with the settings of a suite.

    Attributes:
        input_shape: (channels, height, width) of the images that it takes; None for any.
        stand_in: what to tell a reader if its weights are not what its name promises.
        weights: what identifies the files that it reads; "" for none.
        missing: what to do, where these are not on this machine.
        untrained: settings of the same network that need no files; None if there are none.
        is_frozen: whether a part of it is not trained, as far as is known.
        files: all that identify its weights, those that are not there included; None if it reads others.
    """

    input_shape: tuple[int, int, int] | None
    stand_in: str
    weights: str = ""
    missing: str = ""
    untrained: dict[str, Any] | None = None
    is_frozen: bool = True
    files: tuple[str, ...] | None = ()


@dataclass(frozen=True)
class Machine:
    """Where a run takes place.

    Attributes:
        device: torch's name of the device: `"cpu"`, `"cuda:0"`.
        device_facts: its name and size, for the records.
        threads: of torch's CPU pool, unless a suite sets another number.
        memory_bounds: what limits one worker there: on CUDA its device's memory, else the host's.
        allocator: environment variables that set how a worker allocates memory.
    """

    device: str
    device_facts: dict[str, Any]
    threads: int
    versions: dict[str, str]
    hardware: dict[str, Any]
    memory_bounds: tuple[Bound, ...]
    allocator: dict[str, str] = field(default_factory=dict)


def describe_components(
    send: Send, references: Iterable[tuple[Kind, str]], import_dirs: Sequence[str]
) -> dict[tuple[Kind, str], Settings | XbenchError]:
    """The settings of each component, or why it cannot be loaded."""
    known: dict[tuple[Kind, str], Settings | XbenchError] = {}
    for kind, name in references:
        try:
            known[kind, name] = settings_of(registry.load(kind, name, import_dirs))
        except XbenchError as error:
            known[kind, name] = error
        except MemoryError:
            raise
        except Exception as error:  # a factory that is named by a string is imported only here
            known[kind, name] = XbenchError(f"{kind} '{name}' is broken: {type(error).__name__}: {error}")
    return known


def describe_models(send: Send, choices: Sequence[Choice], import_dirs: Sequence[str]) -> None:
    """Send for each model what it needs, or what is wrong with its settings. Nothing is downloaded, no model
    is built."""
    for choice in choices:
        try:
            send(_model_facts(choice, False, import_dirs))
        except XbenchError as error:
            send(error)
        except MemoryError:
            raise
        except Exception as error:  # a plugin's hooks may raise anything
            send(XbenchError(f"model '{choice.name}' is broken: {type(error).__name__}: {error}"))


def try_models(send: Send, models: Sequence[tuple[Choice, int]], import_dirs: Sequence[str]) -> None:
    """Build each model, for a number of classes: that is when it checks its settings and reads its files.
    Send what it objects to, or whether a part of it is frozen; other failures are those of its cells.

    Raises:
        MemoryError, RuntimeError: there is too little memory for one of them.
    """
    for choice, classes in models:
        model = None  # two need not fit at once
        spec: ModelSpec = registry.load("model", choice.name, import_dirs)
        try:
            model = spec.load_factory()(classes, **choice.params)
            send(not all(p.requires_grad for p in model.parameters()))
        except XbenchError as error:
            send(error)
        except Exception as error:
            if exhaustion(evidence_of(error)):
                raise
            send(True)


def fetch_weights(send: Send, choice: Choice, import_dirs: Sequence[str]) -> ModelFacts:
    """Download what a model reads; sends (name, done bytes, total bytes)."""
    return _model_facts(choice, True, import_dirs, lambda *progress: send(progress))


def _model_facts(
    choice: Choice,
    may_download: bool,
    import_dirs: Sequence[str],
    progress: Callable[..., None] = lambda *progress: None,
) -> ModelFacts:
    spec: ModelSpec = registry.load("model", choice.name, import_dirs)
    settings = {**settings_of(spec).defaults, **choice.params}
    obtain, weights, missing = spec.load_obtain(), "", ""
    if obtain is not None:
        try:
            weights = obtain(settings, may_download, progress)
            if not isinstance(weights, str):
                raise XbenchError(f"model '{choice.name}' is broken: its `obtain` gives {weights!r}, no text")
        except WeightsNotFound as error:
            missing = f"{error.message}; {error.hint}" if error.hint else error.message
    untrained = None if spec.untrained is None else dict(spec.untrained(settings))
    files = None if obtain is not None and spec.files is None else ()
    if spec.files is not None:
        files = tuple(str(Path(file).absolute()) for file in spec.files(settings))
    return ModelFacts(spec.input_shape, spec.stand_in(settings), weights, missing, untrained, files=files)


def try_optimizers(send: Send, choices: Sequence[Choice], import_dirs: Sequence[str]) -> None:
    """Build each optimizer on a small matrix and take a step: that is when it checks its hyperparameters.
    Send what it objects to, or None."""
    import torch

    for choice in choices:
        spec: OptimizerSpec = registry.load("optimizer", choice.name, import_dirs)
        try:
            parameter = torch.nn.Parameter(torch.ones(2, 2))
            optimizer = spec.load_factory()([parameter], **choice.params)
            if spec.gradients != "sparse":
                _take_a_step(optimizer, parameter)
            send(None)
        except MemoryError:
            raise
        except _Enough:
            send(None)
        except Exception as error:  # plugins may object in any way
            send(f"optimizer '{choice.name}': {str(error) or type(error).__name__}")


class _Enough(Exception):
    """A step goes on and on, as one may that is told to take a billion iterations: it is one that works."""


def _take_a_step(optimizer: Any, parameter: Any) -> None:
    calls = 0

    def closure() -> Any:
        nonlocal calls
        calls += 1
        if calls > _MOST_CLOSURES:
            raise _Enough
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss.detach().double()

    optimizer.step(closure)
    if calls == 0:
        raise ValueError("its step never calls the closure, so it would train without gradients")


def describe_dataset(send: Send, choice: Choice, import_dirs: Sequence[str]) -> DatasetFacts:
    """List a dataset.

    Raises:
        DataNotFound: it is not on this machine.
        XbenchError: its settings are wrong.
    """
    spec, dataset = _build_dataset(choice, import_dirs)
    counts = Counter(f"{e.split}/{dataset.classes[e.label]}" for e in dataset.examples)
    folders = listing_folders([e.path for e in dataset.examples if e.path is not None])
    return DatasetFacts(
        classes=dataset.classes,
        shape=dataset.shape,
        counts=dict(sorted(counts.items())),
        stand_in=spec.stand_in,
        folders=folders,
        is_listed=spec.is_listed,
    )


def decode_dataset(send: Send, choice: Choice, strict: bool, import_dirs: Sequence[str]) -> DecodedDataset:
    """Decode a dataset to the cache; sends (decoded, total) while it does."""
    spec, dataset = _build_dataset(choice, import_dirs)
    code = code_stamp("dataset", choice.name, ImportDirs.of(import_dirs))
    return decode(dataset, choice.name, spec.stand_in, strict, lambda *progress: send(progress), code)


def decode_sample(send: Send, choice: Choice, import_dirs: Sequence[str]) -> DecodedDataset:
    """The dataset, if it was decoded before; else listed whole, with a few images that stand for all."""
    spec, dataset = _build_dataset(choice, import_dirs)
    code = code_stamp("dataset", choice.name, ImportDirs.of(import_dirs))
    if is_decoded(dataset, code):
        return decode(dataset, choice.name, spec.stand_in, False, lambda done, total: None, code)
    return sampled(dataset, choice.name, spec.stand_in, code)


def describe_machine(send: Send, wanted: str) -> Machine:
    """Find the device that a suite asks for.

    Args:
        wanted: `"auto"` (CUDA where there is one), `"cpu"`, `"cuda"` or `"cuda:N"`.

    Raises:
        XbenchError: there is no such device here.
    """
    import psutil
    import torch

    has_cuda = torch.cuda.is_available()
    if wanted == "cpu" or (wanted == "auto" and not has_cuda):
        device, facts = "cpu", {"type": "cpu", "name": processor_name(), "cores": os.cpu_count()}
    else:
        index = int(wanted.partition(":")[2] or 0)
        if not has_cuda or index >= torch.cuda.device_count():
            raise XbenchError(
                f"device '{wanted}': torch sees {torch.cuda.device_count()} CUDA devices here",
                hint="use --device cpu",
            )
        properties = torch.cuda.get_device_properties(index)
        device = f"cuda:{index}"
        facts = {"type": "cuda", "name": properties.name, "total_bytes": properties.total_memory}
    packages = ("xbench", "torch", "torchvision", "numpy")
    return Machine(
        device=device,
        device_facts=facts,
        threads=torch.get_num_threads(),
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
            "cuda": torch.version.cuda if device != "cpu" else "",
            "cudnn": str(torch.backends.cudnn.version()) if device != "cpu" else "",
        },
        hardware={
            "device": facts["name"],
            "system": platform.platform(),
            "cpu": processor_name(),
            "cores": os.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
        },
        memory_bounds=_memory_bounds(device),
        allocator=allocator_settings(facts["type"]),
    )


def _memory_bounds(device: str) -> tuple[Bound, ...]:
    import torch

    if device != "cpu":
        return tuple(device_bounds(device))
    # As a worker does before its limit: threads' stacks are address space.
    torch.ones(1 << 18).add_(1.0)
    return tuple(host_bounds())


def _build_dataset(choice: Choice, import_dirs: Sequence[str]) -> tuple[DatasetSpec, Dataset]:
    spec: DatasetSpec = registry.load("dataset", choice.name, import_dirs)
    try:
        return spec, spec.load_factory()(**choice.params)
    except (XbenchError, MemoryError):
        raise
    except Exception as error:  # plugins may raise anything
        raise XbenchError(f"dataset '{choice.name}' is broken: {type(error).__name__}: {error}") from error
