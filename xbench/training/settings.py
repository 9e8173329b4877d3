"""Settings of one cell.

The suite reader and the command line import this module, so it must not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

Storage = Literal["uint8", "float32"]
Features = Literal["auto", "float32", "bfloat16", "off"]
Count = Annotated[int, Field(strict=True, ge=1)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Warmup = Annotated[int, Field(strict=True, ge=0)] | Annotated[float, Field(strict=True, ge=0.0, lt=1.0)]
EvaluateEvery = Count | Annotated[str, Field(pattern=r"^epoch$|^[1-9][0-9]{0,17} (steps|examples)$")]
# TOML has no null, so a list, or an optimizer below an experiment, needs a word for it.
Clipped = Annotated[Positive | None, BeforeValidator(lambda value: None if value == "off" else value)]
ScheduleName = Literal["constant", "cosine", "linear", "wsd", "step"]
# torch crashes with many more.
MAX_THREADS = 1024
# The settings that change an optimizer's gradients, learning rates or param groups.
RECIPE_KEYS = ("schedule", "warmup", "min_lr", "clip_norm", "clip_value", "weight_decay_on", "groups")


def count_steps_per_epoch(examples: int, batch_size: int, drop_last: bool) -> int:
    """Count the steps of an epoch."""
    whole, rest = divmod(examples, batch_size)
    return whole + bool(rest and not drop_last)


@dataclass(frozen=True)
class Sizes:
    """Numbers of examples in an epoch, in a step, and in memory at once."""

    train_size: int
    batch_size: int
    micro_batch: int


class TrainingSettings(BaseModel):
    """Training settings of a cell; every field is a key of a suite's experiment or of one of its optimizers.

    Attributes:
        train_size: number of examples that the optimizer sees in an epoch, after validation is held out and
            after balancing. `"all"` takes all that are available, and `"largest"` as many as every optimizer
            of the experiment can run under its memory limit.
        validation: share of the training examples to hold out, in whole groups (patients). The default is 0
            for a dataset that brings validation rows, which are used all the same, or that is meant to be
            trained on as a whole.
        selection: the epoch whose weights are kept: the first with the lowest `"validation_loss"`, the
            `"last"`, or the one with the lowest `"test_loss"`, which makes the test metrics optimistic and is
            labelled as such. The default is `"last"` if there are no validation rows.
        evaluate_every: when validation is measured, besides after each epoch: `"epoch"` for never, a number
            of steps (`100` or `"100 steps"`), or a number of examples (`"2000 examples"`). It takes no
            training time, does not change the training, and selects no weights; see `target`.
        balance: `"oversample"` gives every class the same number of examples. Where a class has too few, they
            are repeated as evenly as possible.
        class_weights: weight of each class in the loss, by name; 1 for classes not named.
        epochs: number of passes over the training examples.
        batch_size: number of examples per optimizer step, or `"full"` for all of them.
        micro_batch: number of examples in memory at once, `"full"` for the whole batch, or `"auto"` for the
            fastest number that fits, which is measured. A smaller number changes only memory, time and
            rounding (and, in a model with dropout, the masks that are drawn).
        drop_last: leave out an epoch's last batch if it is smaller than the others. (Some models cannot
            normalise over a batch of one example.) Each epoch leaves out different examples.
        dtype: data type of parameters, inputs and activations, and of losses except with `"bfloat16"`, whose
            losses are computed in float32.
        autocast: with `"bfloat16"`, the forward pass and the loss run under `torch.autocast`: matrix products
            and convolutions in bfloat16, while parameters, gradients and the optimizer's state stay in
            float32.
        compile: compile the model's forward and backward pass with `torch.compile`, before the first step.
        features: precision of the outputs of a frozen part, which are computed once per example and cached on
            disk. `"auto"` is that of `dtype` (with autocast, the one in which they are computed), and falls
            back to `"off"` if outputs cannot be cached; `"off"` computes them in every step.
        memory_format: layout of image batches in memory. `"auto"` takes the faster layout for convolutions on
            the device: channels-last on a CPU and with `tf32`, otherwise contiguous.
        threads: number of CPU threads that torch uses; by default, torch decides.
        deterministic: on CUDA, use only deterministic algorithms, which are slower; an operation without one
            is then an error. On a CPU, results are the same either way.
        tf32: on CUDA, use TensorFloat-32 for float32 convolutions, recurrent layers and matrix products. It
            is faster, but keeps only 10 of the 23 mantissa bits of each factor. Features of a frozen part are
            computed without it. It has no effect on a CPU.
        schedule: how the learning rate changes from step to step, after the warm-up: `"constant"`, `"cosine"`
            and `"linear"` (decay to `min_lr` over the other steps), `"wsd"` (constant, then linear decay to
            `min_lr` over the last fifth of all steps), or `"step"` (times 0.1 after half of all steps, and
            again after three quarters).
        warmup: number of steps in which the learning rate rises linearly to its full value, as an integer; or
            their share of all steps, as a fraction below 1.
        min_lr: the learning rate that the schedule decays to.
        clip_norm: the largest Euclidean norm of a batch's gradient; longer gradients are scaled down to it.
            `"off"` is the default.
        clip_value: the largest magnitude of an element of a batch's gradient. It applies before `clip_norm`.
            `"off"` is the default.
        weight_decay_on: `"weights"` applies weight decay only to parameters of two or more dimensions, and so
            neither to biases nor to the parameters of normalisation layers.
        groups: for patterns (as in `fnmatch`) of parameter names, a table of the optimizer's settings for
            these parameters, such as `{ "head.*" = { lr = 1e-2 } }`. The first pattern that matches counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    train_size: Count | Literal["all", "largest"] = "all"
    validation: Annotated[float, Field(strict=True, ge=0.0, le=0.5)] = 0.1
    selection: Literal["validation_loss", "test_loss", "last"] = "validation_loss"
    evaluate_every: EvaluateEvery = "epoch"
    balance: Literal["none", "oversample"] = "none"
    class_weights: dict[str, Positive] = Field(default_factory=dict)
    epochs: Count = 1
    batch_size: Count | Literal["full"] = 32
    micro_batch: Count | Literal["full", "auto"] = "full"
    drop_last: Annotated[bool, Field(strict=True)] = False
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    autocast: Literal["off", "bfloat16"] = "off"
    compile: Annotated[bool, Field(strict=True)] = False
    features: Features = "auto"
    memory_format: Literal["auto", "channels_last", "contiguous"] = "auto"
    threads: Annotated[int, Field(strict=True, ge=1, le=MAX_THREADS)] | None = None
    deterministic: Annotated[bool, Field(strict=True)] = False
    tf32: Annotated[bool, Field(strict=True)] = False
    schedule: ScheduleName = "constant"
    warmup: Warmup = 0
    min_lr: Annotated[float, Field(strict=True, ge=0.0, allow_inf_nan=False)] = 0.0
    clip_norm: Clipped = None
    clip_value: Clipped = None
    weight_decay_on: Literal["all", "weights"] = "all"
    groups: dict[str, Annotated[dict[str, Any], Field(min_length=1)]] = Field(default_factory=dict)

    @field_validator("evaluate_every")
    @classmethod
    def _read_steps(cls, value: int | str) -> int | str:
        return int(value.split()[0]) if isinstance(value, str) and value.endswith(" steps") else value

    @model_validator(mode="after")
    def _check_tf32(self) -> Self:
        if self.tf32 and self.dtype != "float32":
            raise ValueError(f"tf32 = true has no effect on {self.dtype}; set dtype = 'float32'")
        return self

    @model_validator(mode="after")
    def _check_autocast(self) -> Self:
        if self.autocast != "off" and self.dtype != "float32":
            raise ValueError(
                f"autocast = '{self.autocast}' has no effect on {self.dtype}; set dtype = 'float32'"
            )
        return self

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        if self.min_lr and self.schedule == "constant":
            raise ValueError(f"min_lr = {self.min_lr} has no effect with schedule = 'constant'")
        return self

    @field_validator("groups")
    @classmethod
    def _check_groups(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for pattern, settings in value.items():
            if "params" in settings:
                raise ValueError(f"'params' of the group '{pattern}' is not a setting of an optimizer")
        return value

    @property
    def recipe(self) -> dict[str, Any]:
        """Keys of `RECIPE_KEYS` that differ from their defaults, with their values."""
        fields = type(self).model_fields
        values = {key: getattr(self, key) for key in RECIPE_KEYS}
        return {
            key: value
            for key, value in values.items()
            if value != fields[key].get_default(call_default_factory=True)
        }

    @property
    def changes_rates(self) -> bool:
        """Whether learning rates change from step to step."""
        return self.schedule != "constant" or bool(self.warmup)

    @property
    def has_groups(self) -> bool:
        """Whether some parameters have optimizer settings of their own."""
        return bool(self.groups) or self.weight_decay_on != "all"

    def memory_format_on(self, device: str) -> Literal["channels_last", "contiguous"]:
        """Return the memory format of image batches on a device.

        `"auto"` is channels-last on a CPU and wherever TF32 is allowed: it runs on tensor cores, and cuDNN's
        kernels for them are written for that layout (NVIDIA, "Convolutional Layers User's Guide"). cuDNN's
        other kernels are written for contiguous images, and slower on channels-last ones (PyTorch issue
        #44943).

        Args:
            device: torch's name of the device.
        """
        if self.memory_format != "auto":
            return self.memory_format
        return "channels_last" if self.tf32 or not device.startswith("cuda") else "contiguous"

    @property
    def sizes(self) -> Sizes:
        """Sizes of settings whose sizes are all numbers.

        Raises:
            ValueError: a size is a word.
        """
        train_size, batch_size, micro_batch = self.train_size, self.batch_size, self.micro_batch
        if isinstance(train_size, str) or isinstance(batch_size, str) or isinstance(micro_batch, str):
            raise ValueError(f"sizes are not resolved: {train_size}, {batch_size}, {micro_batch}")
        return Sizes(train_size, batch_size, micro_batch)

    @property
    def loss_dtype(self) -> Literal["float32", "float64"]:
        """Data type of losses, and of the rows that are not images."""
        return "float32" if self.dtype == "bfloat16" else self.dtype

    @property
    def rounds_to_bfloat16(self) -> bool:
        """Whether the model's outputs have the rounding error of bfloat16."""
        return "bfloat16" in (self.dtype, self.autocast)

    @property
    def selects_on_test(self) -> bool:
        """Whether the weights are selected on the test split."""
        return self.selection == "test_loss"

    @property
    def keeps_feature_dtype(self) -> bool:
        """Whether features are cached in the dtype in which they are computed, which autocast decides."""
        return self.features == "auto" and self.autocast != "off"

    @property
    def feature_precision(self) -> Literal["float32", "float64", "bfloat16", "auto", "off"]:
        """Precision of cached features; `"auto"` if they keep their dtype, and `"off"` if none are cached."""
        if self.features != "auto":
            return self.features
        return "auto" if self.keeps_feature_dtype else self.dtype


@dataclass(frozen=True)
class Choice:
    """A component's name in a suite, and the settings that the suite gives it."""

    name: str
    params: dict[str, Any]

    @property
    def rest(self) -> Choice | None:
        """The optimizer of the parameters that this one leaves, which is its setting `rest`."""
        match self.params.get("rest"):
            case {"name": str(name), **params}:
                return Choice(name, {str(key): value for key, value in params.items()})
        return None


@dataclass(frozen=True)
class SeedParts:
    """The seeds of what is drawn at random, which are the same for every optimizer.

    Attributes:
        weights: seed of the initial weights, and of what the model and the optimizer draw in training, such
            as dropout masks.
        split: seed of the validation split, and of which training examples are drawn or repeated.
        order: seed of the order of examples in each epoch, and so of the batches.
    """

    weights: int = 0
    split: int = 0
    order: int = 0

    @classmethod
    def of(cls, seed: int) -> SeedParts:
        """Return equal parts."""
        return cls(seed, seed, seed)


@dataclass(frozen=True)
class CellSettings:
    """Everything that determines a training run, except the data.

    Attributes:
        seed: the number of the cell's seed in the suite. What is drawn follows `seed_parts`.
        device: torch's name of the device.
        storage: `"uint8"` reads examples as they are needed; `"float32"` keeps the whole dataset in memory as
            normalised floats.
        parts: the seeds of what is drawn, if the suite varies them apart; None if all of them are `seed`.
    """

    model: Choice
    optimizer: Choice
    training: TrainingSettings
    seed: int
    device: str
    storage: Storage = "uint8"
    parts: SeedParts | None = None

    @property
    def seed_parts(self) -> SeedParts:
        """The seeds of what is drawn at random."""
        return SeedParts.of(self.seed) if self.parts is None else self.parts

    def without_seed(self) -> CellSettings:
        """Return the settings with a neutral seed, for what does not depend on it."""
        return replace(self, seed=0, parts=None)
