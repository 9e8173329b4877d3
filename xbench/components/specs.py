"""The plugin contract: an entry point refers to a frozen spec, which is all that xbench knows of a component.

A factory is a callable, or a string `"module:attribute"` that is imported when the component is used. Every
listing imports the module that holds the *spec*, so that module must not import torch at the top level.

A factory's parameters are the component's settings: xbench reads their names, defaults and types from the
signature, and a suite may set any of them. xbench itself passes the parameters to the first parameter of an
optimizer's factory, with what else it asks of the run, and to a model's factory what it asks of the data: the
number of classes, or `facts`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from xbench.components.removed_fields import without_fields
from xbench.components.roles import Role, check_role_names
from xbench.components.search_range import SearchSpace
from xbench.errors import XbenchError
from xbench.text import quote_some

# The optimizer of the parameters that another one leaves, unless a suite names one.
DEFAULT_REST = "adamw"

# (settings, may_download, on_progress(name, done_bytes, total_bytes)) -> identity; see `ModelSpec`.
Obtain = Callable[[Mapping[str, Any], bool, Callable[[str, int, int], None]], str]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Fields that all kinds of components share.

    Attributes:
        factory: a callable that makes the component, or its `"module:attribute"`.
        summary: a one-line description for `xbench list`.
        reference: a paper, documentation page or data publication, which `xbench info` shows.
        removed_fields: fields of an older xbench that were passed and ignored; see `without_fields`.
    """

    factory: Callable[..., Any] | str
    summary: str = ""
    reference: str = ""
    removed_fields: ClassVar[tuple[str, ...]] = ()

    def load_factory(self) -> Callable[..., Any]:
        """Return the factory, after importing it if the field is a string.

        Raises:
            XbenchError: the factory cannot be imported.
        """
        return import_attribute("factory", self.factory)


def import_attribute(role: str, named: Callable[..., Any] | str) -> Callable[..., Any]:
    """Import a `"module:attribute"`; return anything else unchanged.

    Args:
        role: what it is, for the message.

    Raises:
        XbenchError: it cannot be imported.
    """
    if not isinstance(named, str):
        return named
    module, _, attribute = named.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # importing a plugin may raise anything
        raise XbenchError(f"{role} '{named}' cannot be imported: {error}") from error


_KNOWN_VALUES = {
    "parameters": ("any", "matrices"),
    "gradients": ("dense", "sparse", "any"),
    "backward": ("plain", "create_graph", "fused"),
}


@dataclass(frozen=True, kw_only=True)
class OptimizerSpec(Spec):
    """An optimizer: `factory(params, **hyperparameters)` returns a `torch.optim.Optimizer`, or any object
    with a `step(closure)` method.

    **Closure.** xbench always calls `optimizer.step(closure)`. A step must call the closure at least once,
    and may call it any number of times. Each call sets the old gradients to None, leaves the batch's new
    gradients in `.grad`, and returns the batch's loss, a float64 scalar without a graph. All calls within one
    step see the same examples and the same dropout masks, so their losses can be compared, as a line search
    does. For that, the closure seeds the generators of torch, `random` and NumPy, and restores them
    afterwards, so it does not disturb the optimizer's own random numbers. There are no gradients before the
    first call of a step: an optimizer that needs them earlier, as SAM does for its ascent, must call the
    closure. It cannot call `backward()` itself, unless `backward` says so.

    **What the factory is told.** A factory asks for more than the parameters by the names of its own
    parameters, which are then not settings: `model` (the module that is trained), `named_parameters` (a list
    of pairs of a name and a parameter), `total_steps`, `steps_per_epoch` and `num_examples` (the training
    examples of an epoch). If its first parameter is called `model` or `named_parameters`, it receives that in
    place of the parameters. Otherwise, its first parameter is a list of parameters or, where a suite sets
    `groups` or `weight_decay_on`, a list of param groups: dicts with `params` and settings, as `torch.optim`
    takes them.

    **Learning rates.** A suite's `schedule` and `warmup` set `lr` in each of the optimizer's `param_groups`
    before each step; a tensor is filled in place. A suite that sets them for an optimizer whose steps do not
    depend on these rates is refused.

    **Modes.** If the optimizer has both `train()` and `eval()`, as schedule-free optimizers do, xbench calls
    `train()` before training steps, and `eval()` before the weights are evaluated or saved.

    **Check.** Before a run, the optimizer is built with the suite's hyperparameters and takes two steps on a
    few weights: a matrix and a vector, or the rows of an embedding if it takes sparse gradients only. An
    exception is reported with the line of the suite. An optimizer for matrices gets a small network with two
    layers. The optimizer then repeats these steps with NaN in
    `.grad` before each of them, and is refused if NaN reaches its weights or its state. It may change the
    weights before it first calls the closure.

    **State.** The optimizer's memory is every tensor that it can reach and that the model does not own: in
    `state`, in a wrapped optimizer, in other attributes (`__dict__` or `__slots__`), and in dicts, lists,
    tuples, sets and deques inside them. The model owns its parameters, their `.grad`, and its buffers.
    Tensors that share storage count once. Tensors that only a function's closure holds are not found.

    **Other attributes.** If there is a `defaults` dict, xbench takes `history_size` from it for the record,
    and it overrides the settings that `state_vectors` sees. A resumable optimizer needs `state_dict()` and
    `load_state_dict()`.

    Attributes:
        parameters: parameters that it updates: `"any"`, or `"matrices"`, as Muon. These are the matrices of
            hidden layers, but neither embeddings nor the output layer (see `components.roles`). All other
            parameters go to a second optimizer, which a suite can name: `rest = "adamw"` is the default. A
            step then calls the closure once, and steps both optimizers without a closure.
        flattens_kernels: whether an optimizer of matrices also takes hidden parameters of more than two
            dimensions, such as the kernels of convolutions.
        gradients: gradients that it accepts: `"dense"`, `"sparse"` or `"any"`.
        backward: the backward pass that it needs. `"create_graph"`: gradients that can be differentiated, for
            products with the Hessian; they are dropped after the step. `"fused"`: its own, as LOMO, which
            updates parameters during the backward pass. Such an optimizer calls `closure.loss()` once a step
            and never `closure()`. This clears all gradients and returns the batch's loss with its graph.
            Batches cannot be divided into micro-batches for either.
        line_search: `line_search(hyperparameters)` returns whether it compares losses to choose the length of
            a step. The hyperparameters include defaults.
        needs_loss: whether its step uses the value of the loss that the closure returns, for example as a
            step size. It then cannot be one of two optimizers of a model, which step without a closure.
        full_batch: whether it is meant to train on the whole training set as one batch. Its capacity is then
            probed that way.
        state_vectors: `state_vectors(hyperparameters)` returns the theoretical size of the state between
            steps, as a multiple of the trained parameters' size, or None if it depends on anything else. The
            hyperparameters include defaults, and `element_bytes`, the size of an element of the parameters: 4
            in float32, 2 in bfloat16. A state that is always in float32 takes `4 / element_bytes` vectors.
        fill_state: `fill_state(optimizer)`, or its `"module:attribute"`: puts a fresh optimizer into the
            state in which its next step takes the most memory, and may shorten that step. Capacity is probed
            in that state. For optimizers whose state still grows after the second step.
        memory_period: number of steps after which the optimizer has done everything it does at least once: k
            for a method that recomputes a preconditioner every k steps; or `memory_period(hyperparameters)`,
            which returns it. Memory is then measured over one step more, however long that takes. By default
            it is measured over 3 to 12 steps.
        resumable: whether `state_dict()` holds everything that changes from step to step, as tensors,
            numbers, strings, lists and dicts. An interrupted cell then resumes from a checkpoint. Otherwise
            it starts again.
        search_space: the values of settings that a suite's `[experiment.tune]` searches by default, by name:
            `{"lr": SearchRange(low=1e-5, high=1e-1, scale="log")}`.
        memory_free: names of settings on whose values the memory of a run does not depend, except on whether
            they are zero (or False, or None), which may need another buffer. Runs that differ in these alone
            share a measurement of memory.

    If a model does not offer the parameters or gradients that an optimizer needs, the cell is `skipped`, with
    that reason. A factory that finds that the model does not suit raises `xbench.Unsupported`.
    """

    parameters: Literal["any", "matrices"] = "any"
    flattens_kernels: bool = False
    gradients: Literal["dense", "sparse", "any"] = "dense"
    backward: Literal["plain", "create_graph", "fused"] = "plain"
    line_search: Callable[[Mapping[str, Any]], bool] = lambda hyperparameters: False
    needs_loss: bool = False
    full_batch: bool = False
    state_vectors: Callable[[Mapping[str, Any]], float | None] = lambda hyperparameters: None
    fill_state: Callable[[Any], None] | str | None = None
    memory_period: int | Callable[[Mapping[str, Any]], int | None] | None = None
    resumable: bool = False
    search_space: SearchSpace = field(default_factory=dict)
    memory_free: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # An unknown value would silently disable the checks of models.
        for name, known in _KNOWN_VALUES.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"OptimizerSpec: {name}={getattr(self, name)!r} is not one of {quote_some(known)}"
                )
        for name in ("state_vectors", "line_search"):
            if not callable(getattr(self, name)):
                value = getattr(self, name)
                raise TypeError(
                    f"OptimizerSpec: {name}={value!r} is not a function of the settings, such as "
                    f"lambda settings: {value!r}"
                )

    def load_fill_state(self) -> Callable[[Any], None] | None:
        """Return the hook that fills the state, after importing it if the field is a string.

        Returns:
            None if the optimizer has no such hook.

        Raises:
            XbenchError: the hook cannot be imported.
        """
        return None if self.fill_state is None else import_attribute("fill_state", self.fill_state)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The values of a setting on which memory depends, so that a probe can find the largest that fits.

    The peak may rise in proportion to the value, or with its square.

    Attributes:
        lowest: the smallest value to try.
        highest: the largest value that makes sense; None if there is no end.
        multiple: a number that divides every value, or the name of another setting of the same component
            whose value does, as the heads of attention divide its width.
        axis: name under which the probe offers the setting; by default the setting's name, with `-` for `_`.
        needs: `needs(value)` returns other settings of the component that the value needs, such as a text
            that is long enough for a context. They replace those that the user chooses.

    Raises:
        ValueError: on construction, if a number is below 1, or `highest` is below `lowest`.
    """

    lowest: int = 1
    highest: int | None = None
    multiple: int | str = 1
    axis: str = ""
    needs: Callable[[int], Mapping[str, Any]] = lambda value: {}

    def __post_init__(self) -> None:
        numbers = [self.lowest, *([] if isinstance(self.multiple, str) else [self.multiple])]
        if min(numbers) < 1 or (self.highest is not None and self.highest < self.lowest):
            raise ValueError(
                f"a scale from {self.lowest} to {self.highest} in multiples of {self.multiple} is not valid"
            )


@without_fields("files")
@dataclass(frozen=True, kw_only=True)
class ModelSpec(Spec):
    """A model: `factory(**settings)` returns a `torch.nn.Module`.

    **Images.** With a `Dataset` of images, the model is a classifier. It maps (N, C, H, W) normalised float
    images to (N, number of classes) logits, in one tensor and without a softmax. When a suite is checked, the
    model is run on random images of the dataset's shape, in evaluation mode and in training mode. A model
    that fails or returns anything but logits is an error in the suite.

    **Rows.** With a `RowDataset`, the model is any module that the functions of the task call. When a suite
    is checked, the losses and metrics of a few rows are computed with it.

    **What the factory is told.** If it has a parameter `facts`, it receives an `xbench.Facts`: the structure
    of a row, what the task says that a model returns, and the number of training rows. If it has a parameter
    for the number of classes, or of other outputs, it receives that by keyword, so the parameter may have any
    position. It is called `num_classes`, `n_classes`, `classes`, `num_labels`, `num_outputs` or
    `out_features` (`model_factory.CLASS_COUNT_NAMES` lists all spellings). A factory with neither receives
    `num_classes` if it takes `**kwargs`; otherwise, the model must have the right number of outputs by
    itself. Parameters whose size depends on the first input (`LazyLinear`) are initialised together with the
    others.

    Set `requires_grad` to False on parameters that are not to be trained. If all trained parameters are in
    one submodule that comes last, everything in front of it is computed once per example (see
    `training.frozen`).

    Attributes:
        input_shape: the shape that an input of the model must have, (channels, height, width) for an image;
            None if it takes any.
        mean, std: per-channel normalisation of images whose pixels are in [0, 1]; a single value applies to
            all channels. Rows are not normalised.
        obtain: `obtain(settings, may_download, on_progress) -> str`, or its `"module:attribute"`: makes sure
            that the files which the factory reads with these settings (defaults included) are on this
            machine, and returns a string that identifies their content, or "" if it reads none. It is called
            before the factory, in a process of its own, and reports a download by calling
            `on_progress(name, done_bytes, total_bytes)`. It raises `xbench.WeightsNotFound` if it cannot get
            the files.
        untrained: `untrained(settings)` returns settings (defaults included) that build the same network
            without any files. xbench uses it to time the model before the files are fetched. None if there
            are no such settings.
        stand_in: `stand_in(settings)` returns a warning for readers of the results (`"random weights"`) if
            the weights are not what the model's name promises, and "" otherwise. Defaults are included.
        resumable: False for a model that keeps state outside its state dict (parameters and persistent
            buffers). Its cells write no checkpoints, and an interrupted cell starts again. The memory pass
            checks that a new model which loads the state dict gives the same outputs. If it does not, the
            cell is treated as not resumable, or refused if a selected epoch is to be evaluated.
        scalable: integer settings whose largest value `xbench probe-capacity` can find, by name.
        roles: `"embedding"`, `"hidden"` or `"output"` (the last layer) for patterns (as in `fnmatch`) of
            parameter names. The first pattern that matches counts. Only needed where the roles that follow
            from the model's modules are wrong (see `components.roles`).
    """

    input_shape: tuple[int, int, int] | None = None
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    obtain: Obtain | str | None = None
    untrained: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    stand_in: Callable[[Mapping[str, Any]], str] = lambda settings: ""
    resumable: bool = True
    scalable: Mapping[str, Scale] = field(default_factory=dict)
    roles: Mapping[str, Role] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_role_names(self.roles)

    def load_obtain(self) -> Obtain | None:
        """Return the hook that gets the model's files, after importing it if the field is a string.

        Returns:
            None if the model needs no files.

        Raises:
            XbenchError: the hook cannot be imported.
        """
        return None if self.obtain is None else import_attribute("obtain", self.obtain)


@dataclass(frozen=True, kw_only=True)
class Family:
    """Several components behind one entry point: `NAME/MEMBER` is the spec that `member(MEMBER)` returns.

    Attributes:
        member: `member(name)` returns a member's spec; or its `"module:attribute"`. It raises
            `xbench.XbenchError` for a name that cannot be used, with the reason. Listings do not call it, so
            it may import anything.
        members: `members()` returns all names; None if they cannot be listed. Other names are refused with a
            suggestion, so `member` need not recognise them.
        summary: a one-line description for `xbench list`.
        reference: a paper, documentation page or publication.
    """

    member: Callable[[str], Spec] | str
    members: Callable[[], Sequence[str]] | None = None
    summary: str = ""
    reference: str = ""

    def load_member(self, name: str) -> Spec:
        """Load the spec of one member.

        Raises:
            XbenchError: the family has no such member, or `member` cannot be imported.
        """
        return import_attribute("member", self.member)(name)


@dataclass(frozen=True)
class Source:
    """The zip archive as which a dataset is published.

    Attributes:
        url: download address of the archive.
        sha256: hash of the archive, in hex; empty if unknown.
        size_bytes: size of the archive.
        unpacked_bytes: total size of the unpacked files.
        counts: number of images in each folder below the dataset's root (`"train/NORMAL"`), for all folders.
        folder: name of the dataset's folder in the cache.
        page: web page that describes the dataset.
        licence: licence of the data.
        citation: citation that the data's authors ask for.
    """

    url: str
    sha256: str
    size_bytes: int
    unpacked_bytes: int
    counts: Mapping[str, int]
    folder: str
    page: str
    licence: str
    citation: str


@without_fields("is_listed")
@dataclass(frozen=True, kw_only=True)
class DatasetSpec(Spec):
    """A dataset: `factory(**settings)` returns a `Dataset` of labelled images, or a `RowDataset` of rows with
    a task.

    It raises `xbench.DataNotFound` if the data is not on this machine. The factory of a `Dataset` only lists
    examples, and reads no image. That of a `RowDataset` is called in every process that reads the rows, with
    the generators of torch, NumPy and `random` seeded alike, and must give the same rows each time.

    Attributes:
        stand_in: a warning for readers of the results if the data stands in for real data (`"synthetic
            images"`); empty otherwise.
        source: where images can be downloaded; None if the data is generated or the user's own.
        find_root: `find_root()` returns the folder that holds the data on this machine, even if it is
            incomplete, and raises `xbench.DataNotFound` if there is none. Needed for data with a `source`. If
            a setting names another folder, call it `root`.
        scalable: integer settings whose largest value `xbench probe-capacity` can find, by name; for datasets
            of rows only.
    """

    stand_in: str = ""
    source: Source | None = None
    find_root: Callable[[], Path] | None = None
    scalable: Mapping[str, Scale] = field(default_factory=dict)
