"""Describe and try the components of a suite. All public functions run in child processes.

Importing components loads torch, plugins and the user's own code, whose failures must not end the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from xbench.components import registry
from xbench.components.facts import Facts
from xbench.components.model_factory import advise_class_count, build_network
from xbench.components.registry import Kind
from xbench.components.roles import Role, find_roles, hidden_matrices, watch_last_layer
from xbench.components.settings import Settings, settings_of
from xbench.components.specs import ModelSpec, OptimizerSpec
from xbench.components.tracebacks import describe_error
from xbench.errors import WeightsNotFound, XbenchError
from xbench.memory.exhaustion import evidence_of, exhaustion
from xbench.planning.datasets import describe_row_data
from xbench.training.settings import Choice, TrainingSettings

Send = Callable[[Any], None]


@dataclass(frozen=True)
class ModelFacts:
    """The facts about a model with the settings of a suite.

    Attributes:
        input_shape: (channels, height, width) of the images that the model takes; None for any shape.
        stand_in: what to tell a reader if the weights are not those that the model's name suggests; ""
            otherwise.
        weights: identifies the files that the model reads; "" if it reads none.
        missing: why these files are not on this machine, and what to do; "" if they are.
        untrained: settings with which the same network needs no files; None if there are none.
        is_frozen: whether a part of the model is not trained. True until the model has been tried.
        fails_alone, normalises, parameters: see `TriedModel`.
    """

    input_shape: tuple[int, int, int] | None
    stand_in: str
    weights: str = ""
    missing: str = ""
    untrained: dict[str, Any] | None = None
    is_frozen: bool = True
    fails_alone: str = ""
    normalises: bool = False
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelTrial:
    """A model to be tried before a run: on random images, or on the first rows of a dataset.

    Attributes:
        facts: the facts about the data.
        dataset: the dataset whose rows the model is tried on; None for random images.
        dtype, autocast: the training settings.
        memory_format: `"channels_last"` or `"contiguous"`, the layout of images.
        finds_matrices: whether to find the parameters that optimizers of hidden matrices update.
    """

    model: Choice
    facts: Facts
    dataset: Choice | None
    dtype: str
    memory_format: str
    autocast: str = "off"
    finds_matrices: bool = False

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the random images."""
        channels, height, width = self.facts.input_shape
        return channels, height, width


@dataclass(frozen=True)
class TriedModel:
    """The result of trying a model in which no mistake was found.

    Attributes:
        is_frozen: whether a part of the model is not trained.
        warning: a warning for the user; "" if there is none.
        fails_alone: the error that the model raises for a batch of one image in training mode; "" if it
            raises none.
        normalises: whether the model has batch normalisation that is trained.
        parameters: the names of the parameters that are trained.
        matrices: the names of the hidden matrices; None unless the trial finds them.
        kernels: the names of hidden parameters of more dimensions; () unless the trial finds them.
    """

    is_frozen: bool
    warning: str = ""
    fails_alone: str = ""
    normalises: bool = False
    parameters: tuple[str, ...] = field(default=(), compare=False)
    matrices: tuple[str, ...] | None = None
    kernels: tuple[str, ...] = ()


def describe_components(
    send: Send, references: Iterable[tuple[Kind, str]], import_dirs: Sequence[str]
) -> dict[tuple[Kind, str], Settings | XbenchError]:
    """Load each component, and return its settings, or why it cannot be loaded."""
    known: dict[tuple[Kind, str], Settings | XbenchError] = {}
    for kind, name in references:
        try:
            known[kind, name] = _load_settings(kind, name, import_dirs)
        except XbenchError as error:
            known[kind, name] = error
        except MemoryError:
            raise
        except Exception as error:  # importing a factory may raise anything
            known[kind, name] = XbenchError(f"{kind} '{name}' is broken: {describe_error(error)}")
    return known


def _load_settings(kind: Kind, name: str, import_dirs: Sequence[str]) -> Settings:
    spec = registry.load(kind, name, import_dirs)
    try:
        return settings_of(spec)
    except XbenchError as error:
        raise XbenchError(_name_component(kind, name, error.message), error.hint) from error


def describe_models(send: Send, choices: Sequence[Choice], import_dirs: Sequence[str]) -> None:
    """Send the `ModelFacts` of each model, or an `XbenchError` if its settings are wrong.

    Nothing is downloaded, and no model is built.
    """
    for choice in choices:
        try:
            send(_describe_model(choice, False, import_dirs))
        except XbenchError as error:
            send(error)
        except MemoryError:
            raise
        except Exception as error:  # a plugin's hooks may raise anything
            send(XbenchError(f"model '{choice.name}' is broken: {describe_error(error)}"))


def try_models(send: Send, trials: Sequence[ModelTrial], device: str, import_dirs: Sequence[str]) -> None:
    """Build each model and run it on a few inputs, so that it checks its settings and reads its files.

    Sends a `TriedModel` for each model, or an `XbenchError` if something is wrong with it.

    Args:
        device: the device that the suite trains on. Models are tried on the CPU, and on this device only if
            they fail there.

    Raises:
        MemoryError, RuntimeError: there is not enough memory to build a model.
    """
    from xbench.training.seeding import seed_everything

    for trial in trials:
        network = None  # frees the previous model: two may not fit into memory
        name = trial.model.name
        spec: ModelSpec = registry.load("model", name, import_dirs)
        seed_everything(0)  # every check of a suite finds the same
        try:
            network = _build_for_trial(trial, spec, import_dirs)
        except XbenchError as error:
            send(XbenchError(_name_component("model", name, error.message), error.hint))
        except (Exception, SystemExit) as error:  # a plugin may raise anything
            if exhaustion(evidence_of(error)):
                raise
            send(XbenchError(f"model '{name}' cannot be built: {describe_error(error)}"))
        else:
            tried = _try_model(trial, spec, network, device, import_dirs)
            if isinstance(tried, TriedModel):
                trained = (key for key, p in network.named_parameters() if p.requires_grad)
                tried = replace(tried, parameters=tuple(trained))
            send(tried)


def _build_for_trial(trial: ModelTrial, spec: ModelSpec, import_dirs: Sequence[str]) -> Any:
    if trial.dataset is None:
        return build_network(spec, trial.facts, trial.model.params)
    from xbench.training.open_data import run_on_first_row

    data = describe_row_data(trial.dataset, import_dirs)
    return build_network(
        spec, trial.facts, trial.model.params, lambda model: run_on_first_row(model, data, import_dirs)
    )


def _try_on_rows(trial: ModelTrial, network: Any, import_dirs: Sequence[str]) -> TriedModel:
    import torch

    from xbench.training.logits import has_batch_normalisation
    from xbench.training.open_data import open_row_set, run_on_first_row
    from xbench.training.task_checks import check_task

    assert trial.dataset is not None
    data = describe_row_data(trial.dataset, import_dirs)
    is_frozen = not all(p.requires_grad for p in network.parameters())
    rows = open_row_set(data, import_dirs)
    spec: ModelSpec = registry.load("model", trial.model.name, import_dirs)
    advice = advise_class_count(spec.load_factory())
    dtype = getattr(torch, trial.dtype)
    check_task(network, trial.model.name, rows, data, dtype, advice, trial.autocast)
    tried = TriedModel(is_frozen, normalises=has_batch_normalisation(network))
    if not trial.finds_matrices:
        return tried
    network.to(dtype).eval()  # the check of the task may have converted it to another dtype
    with watch_last_layer(network) as last:
        run_on_first_row(network, data, import_dirs, torch.float32 if dtype is torch.bfloat16 else dtype)
    return _add_matrices(tried, network, find_roles(network, rows.task.roles, spec.roles, last=last))


def _add_matrices(tried: TriedModel, network: Any, roles: Mapping[str, Role]) -> TriedModel:
    matrices, hidden = (tuple(hidden_matrices(network, roles, kernels)) for kernels in (False, True))
    return replace(tried, matrices=matrices, kernels=tuple(name for name in hidden if name not in matrices))


def _try_model(
    trial: ModelTrial, spec: ModelSpec, network: Any, device: str, import_dirs: Sequence[str]
) -> TriedModel | XbenchError:
    import torch

    if trial.dataset is not None:
        try:
            return _try_on_rows(trial, network, import_dirs)
        except XbenchError as error:
            return error

    from xbench.training.logits import (
        check_logits,
        explain_single_image_failure,
        has_batch_normalisation,
        random_images,
    )
    from xbench.training.precision import autocast

    dtype, name = getattr(torch, trial.dtype), trial.model.name
    is_frozen = not all(p.requires_grad for p in network.parameters())
    classes = trial.facts.output.size if trial.facts.output else 0
    found = XbenchError(f"model '{name}' was not tried")
    for place in dict.fromkeys(("cpu", device)):  # some operations exist only on CUDA
        try:
            images = random_images(spec, 3, trial.image_shape, dtype, trial.memory_format).to(place)
            advice = advise_class_count(spec.load_factory())
            with autocast(images.device, trial.autocast):
                warning = check_logits(network.to(place, dtype), name, images, classes, advice)
                fails_alone = explain_single_image_failure(network, images[:1])
            tried = TriedModel(is_frozen, warning, fails_alone, has_batch_normalisation(network))
            if not trial.finds_matrices:
                return tried
            with autocast(images.device, trial.autocast), watch_last_layer(network.eval()) as last:
                network(images[:1])
            return _add_matrices(tried, network, find_roles(network, spec.roles, last=last))
        except XbenchError as error:
            found = XbenchError(_name_component("model", name, error.message), error.hint)
        except Exception as error:
            if not exhaustion(evidence_of(error)):
                raise
            # The model's cells have other limits, and may be meant to run out of memory.
            return TriedModel(is_frozen, f"model '{name}' was not tried on an image: out of memory")
    return found


def _name_component(kind: Kind, name: str, message: str) -> str:
    """Prefix a message with the component's name, unless it mentions the name already."""
    return message if name in message else f"{kind} '{name}': {message}"


def fetch_weights(send: Send, choice: Choice, import_dirs: Sequence[str]) -> ModelFacts:
    """Download the files that a model reads, and return its facts. Sends (name, done bytes, total bytes)."""
    return _describe_model(choice, True, import_dirs, lambda *progress: send(progress))


def _describe_model(
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
                raise XbenchError(
                    f"model '{choice.name}' is broken: its `obtain` returns {weights!r}, not a str"
                )
        except WeightsNotFound as error:
            missing = f"{error.message}; {error.hint}" if error.hint else error.message
    untrained = None if spec.untrained is None else dict(spec.untrained(settings))
    return ModelFacts(spec.input_shape, spec.stand_in(settings), weights, missing, untrained)


def try_recipes(
    send: Send,
    pairs: Sequence[tuple[Choice, TrainingSettings]],
    device: str,
    import_dirs: Sequence[str],
) -> None:
    """Try each pair of an optimizer and settings with a recipe, and send its `RecipeTrial`.

    Args:
        device: the device that the suite trains on, for optimizers that do not work on the CPU.
    """
    from xbench.training.optimizer import load_optimizer  # loads torch
    from xbench.training.recipe_mistakes import RecipeTrial
    from xbench.training.recipe_trial import try_recipe

    for choice, training in pairs:
        try:
            optimizer = load_optimizer(choice, import_dirs)
        except XbenchError:  # reported by the trial of the optimizer
            send(RecipeTrial())
        else:
            send(try_recipe(optimizer, training, device, import_dirs))


def try_optimizers(send: Send, choices: Sequence[Choice], device: str, import_dirs: Sequence[str]) -> None:
    """Take a few steps with each optimizer, and send what is wrong with it.

    Sends an `XbenchError` if its parts cannot be combined, a string if it does not work, and otherwise None.

    Args:
        device: the device that the suite trains on. Optimizers are tried on the CPU, and on this device only
            if they fail there.
    """
    from xbench.training.optimizer import with_rest  # loads torch
    from xbench.training.trial import try_optimizer

    for choice in choices:
        spec: OptimizerSpec = registry.load("optimizer", choice.name, import_dirs)
        try:
            with_rest(choice, spec, import_dirs)
        except XbenchError as error:
            send(XbenchError(_name_component("optimizer", choice.name, error.message), error.hint))
            continue
        complaint = try_optimizer(spec, choice.params, import_dirs=import_dirs)
        if complaint is not None and device != "cpu":
            complaint = try_optimizer(spec, choice.params, device, import_dirs)
        send(None if complaint is None else f"optimizer '{choice.name}': {complaint}")
