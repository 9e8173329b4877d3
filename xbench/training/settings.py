"""Settings of one cell.

The suite reader and the command line import this module, so it must not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Storage = Literal["uint8", "float32"]
Features = Literal["auto", "float32", "bfloat16", "off"]
Count = Annotated[int, Field(strict=True, ge=1)]
Weight = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
# torch crashes with many more.
MAX_THREADS = 1024


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
        dtype: data type of parameters, inputs and losses.
        features: precision of the outputs of a frozen part, which are computed once per example and cached on
            disk. `"auto"` is that of `dtype`, and falls back to `"off"` if outputs cannot be cached; `"off"`
            computes them in every step.
        memory_format: layout of image batches in memory. `"auto"` takes the faster layout for convolutions on
            the device: channels-last on a CPU and with `tf32`, otherwise contiguous.
        threads: number of CPU threads that torch uses; by default, torch decides.
        deterministic: on CUDA, use only deterministic algorithms, which are slower; an operation without one
            is then an error. On a CPU, results are the same either way.
        tf32: on CUDA, use TensorFloat-32 for float32 convolutions, recurrent layers and matrix products. It
            is faster, but keeps only 10 of the 23 mantissa bits of each factor. Features of a frozen part are
            computed without it. It has no effect on a CPU.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    train_size: Count | Literal["all", "largest"] = "all"
    validation: Annotated[float, Field(strict=True, ge=0.0, le=0.5)] = 0.1
    selection: Literal["validation_loss", "test_loss", "last"] = "validation_loss"
    balance: Literal["none", "oversample"] = "none"
    class_weights: dict[str, Weight] = Field(default_factory=dict)
    epochs: Count = 1
    batch_size: Count | Literal["full"] = 32
    micro_batch: Count | Literal["full", "auto"] = "full"
    drop_last: Annotated[bool, Field(strict=True)] = False
    dtype: Literal["float32", "float64"] = "float32"
    features: Features = "auto"
    memory_format: Literal["auto", "channels_last", "contiguous"] = "auto"
    threads: Annotated[int, Field(strict=True, ge=1, le=MAX_THREADS)] | None = None
    deterministic: Annotated[bool, Field(strict=True)] = False
    tf32: Annotated[bool, Field(strict=True)] = False

    @model_validator(mode="after")
    def _check_tf32(self) -> Self:
        if self.tf32 and self.dtype != "float32":
            raise ValueError(f"tf32 = true has no effect on {self.dtype}; set dtype = 'float32'")
        return self

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
    def selects_on_test(self) -> bool:
        """Whether the weights are selected on the test split."""
        return self.selection == "test_loss"

    @property
    def feature_precision(self) -> Literal["float32", "float64", "bfloat16", "off"]:
        """Precision of cached features; `"off"` if none are cached."""
        return self.dtype if self.features == "auto" else self.features


@dataclass(frozen=True)
class Choice:
    """A component's name in a suite, and the settings that the suite gives it."""

    name: str
    params: dict[str, Any]


@dataclass(frozen=True)
class CellSettings:
    """Everything that determines a training run, except the data.

    Attributes:
        seed: determines the initial weights, the validation split and the order of batches, whatever the
            optimizer.
        device: torch's name of the device.
        storage: `"uint8"` reads examples as they are needed; `"float32"` keeps the whole dataset in memory as
            normalised floats.
    """

    model: Choice
    optimizer: Choice
    training: TrainingSettings
    seed: int
    device: str
    storage: Storage = "uint8"
