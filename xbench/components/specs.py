"""The plugin contract: the frozen object behind an entry point is all that xbench knows of a component.

A factory is a callable, or a string `"module:attribute"` that is imported when the component is used. The
module that holds the *spec* is imported by every listing, so it must not import torch at its top.

A factory's parameters are the component's settings: their names, defaults and types are read from its
signature, and a suite may set any of them. xbench fills one itself: the first parameter of an optimizer's
factory, and the parameter of a model's that takes the number of classes.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from xbench.errors import XbenchError

if TYPE_CHECKING:
    import numpy as np

# (settings, may_download, on_progress(name, done_bytes, total_bytes)) -> identity; see `ModelSpec`.
Obtain = Callable[[Mapping[str, Any], bool, Callable[[str, int, int], None]], str]


def without_fields(*names: str) -> Callable[[type], type]:
    """Keep accepting fields that a spec had in the previous version of xbench: they are ignored, with a
    `DeprecationWarning`. The version after that drops the name here, and the field is a `TypeError`.

    Args:
        names: fields that were removed from the decorated dataclass.
    """

    def decorate(spec_type: type) -> type:
        init = vars(spec_type)["__init__"]

        @functools.wraps(init)
        def accept_and_warn(self: Spec, **fields: Any) -> None:
            removed = tuple(name for name in names if name in fields)
            for name in removed:
                del fields[name]
                warnings.warn(
                    f"{spec_type.__name__}: the field '{name}' was removed and is ignored: delete it, as the "
                    "next version of xbench refuses it",
                    DeprecationWarning,
                    stacklevel=2,
                )
            init(self, **fields)
            object.__setattr__(self, "removed_fields", removed)

        type.__setattr__(spec_type, "__init__", accept_and_warn)
        return spec_type

    return decorate


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What every component declares.

    Attributes:
        factory: makes the component, or `"module:attribute"` of what does.
        summary: one line for `xbench list`.
        reference: paper, documentation or data publication; shown by `xbench info`.
        removed_fields: fields of an older xbench that it was made with; see `without_fields`.
    """

    factory: Callable[..., Any] | str
    summary: str = ""
    reference: str = ""
    removed_fields: ClassVar[tuple[str, ...]] = ()

    def load_factory(self) -> Callable[..., Any]:
        """The factory itself, imported now if it was given as a string.

        Raises:
            XbenchError: it cannot be imported.
        """
        return _import("factory", self.factory)


def _import(role: str, named: Callable[..., Any] | str) -> Callable[..., Any]:
    if not isinstance(named, str):
        return named
    module, _, attribute = named.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # importing a plugin may raise anything
        raise XbenchError(f"{role} '{named}' cannot be imported: {error}") from error


@dataclass(frozen=True, kw_only=True)
class OptimizerSpec(Spec):
    """An optimizer: `factory(params, **hyperparameters)` returns a `torch.optim.Optimizer`, or any object
    with a `step(closure)`.

    **Closure.** It is always stepped as `optimizer.step(closure)`. A step calls the closure at least once,
    and as often as it likes. A call clears the old gradients (sets them to None), leaves the batch's new ones
    in `.grad`, and returns the batch's loss: a float64 scalar without a graph. Within a step every call sees
    the same examples and the same dropout masks, so that values can be compared, as a line search does: it
    seeds the generators of torch, `random` and NumPy, and sets them back, so that what the optimizer draws
    from them goes on. There are no gradients before the first call of a step: an optimizer that
    needs some, for the ascent of SAM say, calls the closure for them. It cannot call `backward()` itself.

    **Modes.** If it has both `train()` and `eval()`, as schedule-free optimizers do, `train()` is called
    before training steps, and `eval()` before the weights are evaluated or kept.

    **Check.** Before a run it is built with the hyperparameters of the suite and takes two steps on a few
    weights (a matrix and a vector; the rows of an embedding if it takes sparse gradients only). What it
    raises is told to the user with the line of the suite. It takes the same steps again with NaN in `.grad`
    before each of them: if that brings NaN into its weights or its state, it is refused. Weights may move
    before the first closure call.

    **State.** All tensors count as its memory that it can reach and the model does not own: in `state`, in a
    wrapped optimizer, in other attributes (`__dict__` or `__slots__`), and in dicts, lists, tuples, sets and
    deques within these. The model owns its parameters, their `.grad`, and its buffers. Tensors that share a
    storage count once. What only a function has closed over is not found.

    **Other attributes.** `defaults` is read where there is one: for a `history_size`, which goes into the
    record, and for `state_vectors`. `state_dict()` and `load_state_dict()` are needed if it is resumable.

    Attributes:
        parameters: which parameters it can update: `"any"`, or `"matrices"` (2-D only, as Muon).
        gradients: which gradients it takes: `"dense"`, `"sparse"` or `"any"`.
        full_batch: whether it is meant for the whole training set as one batch; capacity is then probed so.
        state_vectors: what theory says of its state between steps, in vectors of the trained parameters, from
            its hyperparameters (defaults included); it may give None where that depends on more than these.
        fill_state: `fill_state(optimizer)`, or `"module:attribute"` of it: puts a fresh optimizer into the
            state in which its next step takes the most memory, and may shorten that step. For an optimizer
            whose state goes on growing after its second step; capacity is probed in that state.
        memory_period: after how many steps all that the optimizer does has been done once (methods that
            renew a preconditioner every k steps: k). Memory is then measured over one more step than that,
            however long it takes; by default over 3 to 12 steps.
        resumable: whether `state_dict()` holds all that changes from step to step, in tensors, numbers,
            texts, lists and dicts. An interrupted cell then resumes from a checkpoint, else it starts
            again.

    A model that does not offer what an optimizer takes makes the cell `skipped`, with that reason.
    """

    parameters: Literal["any", "matrices"] = "any"
    gradients: Literal["dense", "sparse", "any"] = "dense"
    full_batch: bool = False
    state_vectors: Callable[[Mapping[str, Any]], float | None] = lambda hyperparameters: None
    fill_state: Callable[[Any], None] | str | None = None
    memory_period: int | None = None
    resumable: bool = False

    def __post_init__(self) -> None:
        # A word that no check knows would switch the check off.
        if self.parameters not in ("any", "matrices") or self.gradients not in ("dense", "sparse", "any"):
            raise ValueError(
                f"parameters={self.parameters!r}, gradients={self.gradients!r}: see OptimizerSpec"
            )

    def load_fill_state(self) -> Callable[[Any], None] | None:
        """The hook that fills its state, imported now if it was given as a string; None if it has none.

        Raises:
            XbenchError: it cannot be imported.
        """
        return None if self.fill_state is None else _import("fill_state", self.fill_state)


@without_fields("files")
@dataclass(frozen=True, kw_only=True)
class ModelSpec(Spec):
    """A classifier: `factory(num_classes, **settings) -> torch.nn.Module`, from (N, C, H, W) float images in
    the normalised range to (N, num_classes) logits: before any softmax, and in one tensor.

    The number of classes is passed by keyword. Its parameter may stand anywhere, and is called `num_classes`,
    `n_classes`, `classes`, `num_labels`, `num_outputs` or `out_features` (`model_factory.CLASS_COUNT_NAMES`
    lists all spellings); a factory without one is given `num_classes` if it takes `**kwargs`, and is refused
    otherwise. Parameters that are sized by the first image (`LazyLinear`) are initialised with the others.

    When a suite is checked, each model is built and run on random images of the dataset's shape, in
    evaluation and in training mode: one that fails or returns something else is a mistake of the suite.

    A parameter that is not to be trained has `requires_grad` off. If all that are trained lie in one
    submodule that comes last, what is in front of it is computed once per image (see `training.frozen`).

    Attributes:
        input_shape: the (channels, height, width) that it takes, or None for any.
        mean, std: per-channel normalisation of pixels in [0, 1]; one value stands for all channels.
        obtain: `obtain(settings, may_download, on_progress) -> str`, or `"module:attribute"` of it: makes
            sure that the files which the factory reads with these settings (defaults included) are on this
            machine, and returns what identifies their content, "" for none. It is called in a process of
            its own before the factory is, and tells `on_progress(name, done_bytes, total_bytes)` of a
            download. It raises `xbench.WeightsNotFound` where they cannot be had.
        untrained: from settings (defaults included) to those of the same network that need no files, to see
            how long it takes before they are fetched; None if there are none.
        stand_in: what to tell a reader of a model with these settings (defaults included) if its weights are
            not what its name promises (`"random weights"`); empty otherwise.
        resumable: False for a model that keeps state outside of its state dict (parameters and persistent
            buffers). Its cells write no checkpoints; an interrupted one starts again. The memory pass checks
            that a new model which loads the state dict gives the same outputs; where it does not, the cell
            is treated as if the spec said False, or refused if a selected epoch is to be evaluated.
    """

    input_shape: tuple[int, int, int] | None = None
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    obtain: Obtain | str | None = None
    untrained: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    stand_in: Callable[[Mapping[str, Any]], str] = lambda settings: ""
    resumable: bool = True

    def load_obtain(self) -> Obtain | None:
        """The hook that gets its files, imported now if it was given as a string; None if it has none.

        Raises:
            XbenchError: it cannot be imported.
        """
        return None if self.obtain is None else _import("obtain", self.obtain)


@dataclass(frozen=True, kw_only=True)
class Family:
    """Many components behind one entry point: `NAME/MEMBER` is the spec that `member(MEMBER)` returns.

    Attributes:
        member: makes a member's spec, or `"module:attribute"` of what does; raises `xbench.XbenchError` for
            a name that is none. It may import what it likes: it is not called by listings.
        members: gives the names of all, for `xbench info`; None if they are not to be counted.
        summary: one line for `xbench list`.
        reference: paper, documentation or publication.
    """

    member: Callable[[str], Spec] | str
    members: Callable[[], Sequence[str]] | None = None
    summary: str = ""
    reference: str = ""

    def load_member(self, name: str) -> Spec:
        """The spec of one member.

        Raises:
            XbenchError: there is none of that name, or it cannot be imported.
        """
        return _import("member", self.member)(name)


@dataclass(frozen=True)
class Source:
    """Where a dataset is published, as one zip archive.

    Attributes:
        url: of the archive.
        sha256: of the archive, in hex; empty if it is not known.
        size_bytes: of the archive.
        unpacked_bytes: of the files in it.
        counts: images by folder within the dataset's root (`"train/NORMAL"`): all of them.
        folder: name of the dataset's folder in the cache.
        page: where a person reads about it.
        licence, citation: what a user of the data must keep.
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
    """Labelled images: `factory(**settings) -> Dataset`. The factory only lists examples; it reads no image.
    It raises `xbench.DataNotFound` where the data is not on this machine.

    Attributes:
        stand_in: what to tell a reader if the data is made up (`"synthetic images"`); empty for real data.
        source: where it can be fetched; None if it is made up or the user's own.
        find_root: `find_root()` gives the folder that holds it on this machine, whatever is missing in it;
            raises `xbench.DataNotFound` if there is none. For data that has a source. A setting that says
            where else it may be is called `root`.
    """

    stand_in: str = ""
    source: Source | None = None
    find_root: Callable[[], Path] | None = None


@dataclass(frozen=True)
class Example:
    """One image of a dataset, not yet read.

    Attributes:
        name: unique within the dataset and stable between machines (a relative path, say).
        label: index into `Dataset.classes`.
        split: examples of `"test"` are never trained on; validation is held out of `"train"`.
        group: examples of one group (one patient, say) never lie on both sides of a split; "" for none.
        path: the file that it is read from: the file's content then identifies the image.
        content: identifies the image where there is no file (generator, version, seed, index); with a file,
            what else the pixels depend on (a crop, say). Images of the same name, file, content and shape
            share one decoded copy in the cache.
    """

    name: str
    label: int
    split: Literal["train", "test"]
    group: str = ""
    path: Path | None = None
    content: str = ""


@dataclass(frozen=True)
class Dataset:
    """What a dataset's factory returns.

    Attributes:
        classes: class names, in the order of labels.
        positive: the class that recall, precision and AUC are about (two classes).
        shape: (channels, height, width) of every image.
        examples: all examples of both splits.
        read: `read(example)` gives a uint8 array of (height, width, channels), or a uint16 one: then xbench
            scales all that are uint16 to 8 bits alike, by the highest value in the set. It is called from
            several threads, once or twice per image content, and what it raises names an unreadable file.
        notes: facts that a reader of results must know (how a split was made, say).

    Raises:
        XbenchError: on construction, if these do not fit together.
    """

    classes: tuple[str, ...]
    positive: str
    shape: tuple[int, int, int]
    examples: tuple[Example, ...]
    read: Callable[[Example], np.ndarray]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.positive not in self.classes:
            raise XbenchError(f"the positive class '{self.positive}' is none of {', '.join(self.classes)}")
        if len(self.classes) < 2:
            raise XbenchError(f"there is nothing to tell apart in {len(self.classes)} classes")
        names: set[str] = set()
        split_of_group: dict[str, str] = {}
        for example in self.examples:
            if example.group and split_of_group.setdefault(example.group, example.split) != example.split:
                raise XbenchError(f"group '{example.group}' lies in both train and test")
            if example.label not in range(len(self.classes)):
                raise XbenchError(f"example '{example.name}' has label {example.label}, which is no class")
            if example.split not in ("train", "test"):
                raise XbenchError(
                    f"example '{example.name}' is of split '{example.split}', not train or test"
                )
            if example.name in names:
                raise XbenchError(f"two examples are called '{example.name}'")
            names.add(example.name)
