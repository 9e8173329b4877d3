"""Jobs of children that tell what a suite's components are.

Importing components loads torch, plugins and the user's own code, and none of that may take the run down.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from xbench.components import registry
from xbench.components.code import code_stamp
from xbench.components.code_files import ImportDirs
from xbench.components.model_factory import build_network
from xbench.components.registry import Kind
from xbench.components.settings import Settings, settings_of
from xbench.components.specs import Dataset, DatasetSpec, ModelSpec, OptimizerSpec
from xbench.components.tracebacks import in_one_line
from xbench.data import sample
from xbench.data.decode import DECODING, decode, is_decoded
from xbench.data.decoded import DecodedDataset
from xbench.errors import WeightsNotFound, XbenchError
from xbench.memory.exhaustion import evidence_of, exhaustion
from xbench.training.settings import Choice

Send = Callable[[Any], None]


@dataclass(frozen=True)
class DatasetFacts:
    """What a dataset's factory tells without reading an image.

    Attributes:
        counts: images by `"SPLIT/CLASS"`.
        shape: (channels, height, width).
    """

    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    counts: dict[str, int]
    stand_in: str


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
        fails_alone, normalises: see `TriedModel`.
    """

    input_shape: tuple[int, int, int] | None
    stand_in: str
    weights: str = ""
    missing: str = ""
    untrained: dict[str, Any] | None = None
    is_frozen: bool = True
    fails_alone: str = ""
    normalises: bool = False


@dataclass(frozen=True)
class ModelTrial:
    """A model to be tried on images before a run.

    Attributes:
        image_shape: (channels, height, width).
        dtype: `"float32"` or `"float64"`, of the images and weights.
        memory_format: of the images, `"channels_last"` or `"contiguous"`.
    """

    model: Choice
    num_classes: int
    image_shape: tuple[int, int, int]
    dtype: str
    memory_format: str


@dataclass(frozen=True)
class TriedModel:
    """A model that was built, and in whose output nothing was found to be wrong.

    Attributes:
        is_frozen: whether a part of it is not trained.
        warning: what to tell the user all the same; "" for nothing.
        fails_alone: what it raises in training mode for a batch of one image; "" if it takes one.
        normalises: whether it has batch normalisation that is trained.
    """

    is_frozen: bool
    warning: str = ""
    fails_alone: str = ""
    normalises: bool = False


def describe_components(
    send: Send, references: Iterable[tuple[Kind, str]], import_dirs: Sequence[str]
) -> dict[tuple[Kind, str], Settings | XbenchError]:
    """The settings of each component, or why it cannot be loaded."""
    known: dict[tuple[Kind, str], Settings | XbenchError] = {}
    for kind, name in references:
        try:
            known[kind, name] = _settings(kind, name, import_dirs)
        except XbenchError as error:
            known[kind, name] = error
        except MemoryError:
            raise
        except Exception as error:  # a factory that is named by a string is imported only here
            known[kind, name] = XbenchError(f"{kind} '{name}' is broken: {type(error).__name__}: {error}")
    return known


def _settings(kind: Kind, name: str, import_dirs: Sequence[str]) -> Settings:
    spec = registry.load(kind, name, import_dirs)
    try:
        return settings_of(spec)
    except XbenchError as error:
        raise XbenchError(_name_component(kind, name, error.message), error.hint) from error


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


def try_models(send: Send, trials: Sequence[ModelTrial], device: str, import_dirs: Sequence[str]) -> None:
    """Build each model and run it on a few random images: then it checks its settings, reads its files and
    shows what it returns. Send a `TriedModel`, or the `XbenchError` that is wrong with it.

    Args:
        device: where the suite trains. Models are tried on the CPU, and there only if they fail on that.

    Raises:
        MemoryError, RuntimeError: there is too little memory to build one of them.
    """
    from xbench.training.seeding import seed_everything

    for trial in trials:
        network = None  # two need not fit at once
        name = trial.model.name
        spec: ModelSpec = registry.load("model", name, import_dirs)
        seed_everything(0)  # each check of a suite finds the same
        try:
            network = build_network(spec, trial.num_classes, trial.image_shape, trial.model.params)
        except XbenchError as error:
            send(XbenchError(_name_component("model", name, error.message), error.hint))
        except (Exception, SystemExit) as error:  # a plugin may raise anything
            if exhaustion(evidence_of(error)):
                raise
            send(XbenchError(f"model '{name}' cannot be built: {in_one_line(error)}"))
        else:
            send(_try_model(trial, spec, network, device))


def _try_model(trial: ModelTrial, spec: ModelSpec, network: Any, device: str) -> TriedModel | XbenchError:
    import torch

    from xbench.training.logits import (
        check_logits,
        has_batch_normalisation,
        random_images,
        why_not_alone,
    )

    dtype, name = getattr(torch, trial.dtype), trial.model.name
    is_frozen = not all(p.requires_grad for p in network.parameters())
    found = XbenchError(f"model '{name}' was not tried")
    for place in dict.fromkeys(("cpu", device)):  # some operations are only there on CUDA
        try:
            images = random_images(spec, 3, trial.image_shape, dtype, trial.memory_format).to(place)
            warning = check_logits(network.to(place, dtype), name, images, trial.num_classes)
            return TriedModel(
                is_frozen, warning, why_not_alone(network, images[:1]), has_batch_normalisation(network)
            )
        except XbenchError as error:
            found = XbenchError(_name_component("model", name, error.message), error.hint)
        except Exception as error:
            if not exhaustion(evidence_of(error)):
                raise
            # Its cells have other limits, and may be meant to end so.
            return TriedModel(is_frozen, f"model '{name}' was not tried on an image: memory ran out")
    return found


def _name_component(kind: Kind, name: str, message: str) -> str:
    """The message, with the component's name in front unless it is in it already."""
    return message if name in message else f"{kind} '{name}': {message}"


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
    return ModelFacts(spec.input_shape, spec.stand_in(settings), weights, missing, untrained)


def try_optimizers(send: Send, choices: Sequence[Choice], device: str, import_dirs: Sequence[str]) -> None:
    """Take a few steps with each optimizer, and send what is wrong with it, or None.

    Args:
        device: where the suite trains. Optimizers are tried on the CPU, and there only if they fail on that.
    """
    from xbench.training.trial import try_optimizer  # loads torch

    for choice in choices:
        spec: OptimizerSpec = registry.load("optimizer", choice.name, import_dirs)
        complaint = try_optimizer(spec, choice.params)
        if complaint is not None and device != "cpu":
            complaint = try_optimizer(spec, choice.params, device)
        send(None if complaint is None else f"optimizer '{choice.name}': {complaint}")


def describe_dataset(send: Send, choice: Choice, import_dirs: Sequence[str]) -> DatasetFacts:
    """List a dataset.

    Raises:
        DataNotFound: it is not on this machine.
        XbenchError: its settings are wrong.
    """
    spec, dataset = _build_dataset(choice, import_dirs)
    counts = Counter(f"{e.split}/{dataset.classes[e.label]}" for e in dataset.examples)
    return DatasetFacts(
        classes=dataset.classes,
        shape=dataset.shape,
        counts=dict(sorted(counts.items())),
        stand_in=spec.stand_in,
    )


def decode_dataset(send: Send, choice: Choice, strict: bool, import_dirs: Sequence[str]) -> DecodedDataset:
    """Decode a dataset to the cache; sends (step, done, total) while it does."""
    spec, dataset = _build_dataset(choice, import_dirs)
    code = code_stamp("dataset", choice.name, ImportDirs.of(import_dirs))
    return decode(
        dataset,
        choice.name,
        spec.stand_in,
        strict,
        lambda done, total: send((DECODING, done, total)),
        code,
        on_step=lambda *progress: send(progress),
    )


def decode_sample(send: Send, choice: Choice, import_dirs: Sequence[str]) -> DecodedDataset:
    """The dataset, if it was decoded before; else listed whole, with a few images that stand for all."""
    spec, dataset = _build_dataset(choice, import_dirs)
    code = code_stamp("dataset", choice.name, ImportDirs.of(import_dirs))
    if is_decoded(dataset, code):
        return decode(dataset, choice.name, spec.stand_in, False, lambda done, total: None, code)
    return sample.decode_sample(dataset, choice.name, spec.stand_in, code)


def _build_dataset(choice: Choice, import_dirs: Sequence[str]) -> tuple[DatasetSpec, Dataset]:
    spec: DatasetSpec = registry.load("dataset", choice.name, import_dirs)
    try:
        return spec, spec.load_factory()(**choice.params)
    except (XbenchError, MemoryError):
        raise
    except Exception as error:  # plugins may raise anything
        raise XbenchError(f"dataset '{choice.name}' is broken: {type(error).__name__}: {error}") from error
