"""The settings of one cell. Torch-free: the suite reader and the command line import this module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from xbench.records.metrics import CLASSIFICATION_EPOCHS
from xbench.records.schema import MetricRecord

Storage = Literal["uint8", "float32"]
Features = Literal["auto", "float32", "bfloat16", "off"]
Count = Annotated[int, Field(strict=True, ge=1)]
Weight = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
# torch dies of far more.
MAX_THREADS = 1024


@dataclass(frozen=True)
class Sizes:
    """Numbers of examples: in an epoch, of one step, and in memory at once."""

    train_size: int
    batch_size: int
    micro_batch: int


class TrainingSettings(BaseModel):
    """How a cell is trained; every field is a key of a suite's experiment or of one of its optimizers.

    Attributes:
        train_size: examples that the optimizer sees in an epoch, after validation is held out and after
            balancing; `"all"` is what there is, and `"largest"` the most that every optimizer of the
            experiment can run under its memory limit.
        validation: share of the train split's images held out, whole groups (patients) at a time.
        selection: which epoch's weights are kept: the first with the least `"validation_loss"`; `"last"`;
            or the least `"test_loss"`, which makes the test metrics optimistic and is labelled so.
        balance: `"oversample"` gives every class the same number of examples, repeating the rarer one's
            as evenly as possible where there are too few.
        class_weights: the weight of each class in the loss, by its name; 1 for the others.
        epochs: passes over the training examples.
        batch_size: examples of one optimizer step, or `"full"`.
        micro_batch: examples in memory at once, or `"full"` for the whole batch, or `"auto"` for the fastest
            that fits, measured. A smaller one changes nothing but memory, time and rounding (and, in a model
            with dropout, which masks are drawn).
        drop_last: leave out an epoch's last batch if it is smaller than the others (a batch of one example is
            more than some models can normalise over). Each epoch leaves out other examples.
        dtype: the type of parameters, images and losses.
        features: precision in which the outputs of a frozen part are computed once per image and kept on
            disk; `"auto"` is that of `dtype`, and trains without where they cannot be kept; `"off"` computes
            them in every step.
        memory_format: how image batches lie in memory. `"auto"` is what convolutions are fast with on the
            device: channels-last on a CPU and with `tf32`, else contiguous.
        threads: how many threads torch computes with on the CPU; by default torch decides.
        deterministic: on CUDA, use deterministic algorithms alone, at a cost in speed; an operation that has
            none is then an error. On a CPU results are the same either way.
        tf32: on CUDA, let convolutions, recurrent layers and matrix products of float32 use TensorFloat-32,
            which is faster and keeps 10 bits of each factor's mantissa in place of 23. Features of a frozen
            part are computed without it. It has no effect on a CPU.
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
    def _selection_has_its_data(self) -> Self:
        if self.selection == "validation_loss" and self.validation == 0:
            raise ValueError("selection by validation_loss needs validation > 0; or set selection = 'last'")
        return self

    @model_validator(mode="after")
    def _tf32_is_of_float32(self) -> Self:
        if self.tf32 and self.dtype != "float32":
            raise ValueError(f"tf32 = true has no effect on {self.dtype}; set dtype = 'float32'")
        return self

    def memory_format_on(self, device: str) -> Literal["channels_last", "contiguous"]:
        """Return the memory format of image batches on a device.

        `"auto"` is channels-last on a CPU and wherever TF32 is allowed, which tensor cores compute: cuDNN's
        kernels for these are written for that layout (NVIDIA, "Convolutional Layers User's Guide"). Its other
        kernels are written for contiguous images, and slower on channels-last ones (PyTorch issue #44943).

        Args:
            device: torch's name of it.
        """
        if self.memory_format != "auto":
            return self.memory_format
        return "channels_last" if self.tf32 or not device.startswith("cuda") else "contiguous"

    @property
    def sizes(self) -> Sizes:
        """The sizes, of settings that have numbers for all of them.

        Raises:
            ValueError: one is a word.
        """
        train_size, batch_size, micro_batch = self.train_size, self.batch_size, self.micro_batch
        if isinstance(train_size, str) or isinstance(batch_size, str) or isinstance(micro_batch, str):
            raise ValueError(f"sizes that are not resolved: {train_size}, {batch_size}, {micro_batch}")
        return Sizes(train_size, batch_size, micro_batch)

    @property
    def selection_metric(self) -> MetricRecord | None:
        """The metric of epochs that selects the weights; None if they are those of the last epoch."""
        return next((metric for metric in CLASSIFICATION_EPOCHS if metric.name == self.selection), None)

    @property
    def selects_on_test(self) -> bool:
        """Whether the weights are selected on the test split."""
        return self.selection_metric is not None and self.selection_metric.split == "test"

    @property
    def feature_precision(self) -> Literal["float32", "float64", "bfloat16", "off"]:
        """Of features that are kept; `"off"` if none are."""
        return self.dtype if self.features == "auto" else self.features


@dataclass(frozen=True)
class Choice:
    """A component as a suite names it, and the settings given there."""

    name: str
    params: dict[str, Any]


@dataclass(frozen=True)
class CellSettings:
    """All that determines a training run, but for the data.

    Attributes:
        seed: fixes the initial weights, the validation split and the order of batches, whatever the
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
