"""The axes that a probe can search along. The command line imports this, and nothing heavier."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias


class Axis(StrEnum):
    """A size of a training run that a probe can vary, whatever its model and dataset."""

    TRAIN_SIZE = "train-size"
    HISTORY_SIZE = "history-size"
    BATCH_SIZE = "batch-size"
    MICRO_BATCH = "micro-batch"

    @property
    def setting(self) -> str:
        """The name of the setting in suites and records."""
        return self.value.replace("-", "_")


@dataclass(frozen=True)
class ScaledSetting:
    """A setting of a model or dataset that a probe can vary, as the component's `Scale` declares.

    Attributes:
        component: the component that has the setting.
        setting: the name of the setting in suites.
        name: the name of the axis on the command line and in records; `str` returns it.
        lowest: the smallest value to try.
        highest: the largest value to try; None if there is no end.
        multiple: a number that divides every value, unless `multiple_of` is set to another one.
        multiple_of: name of the setting whose value divides every value; "" if there is none.
        has_needs: whether a value brings the other settings that it needs (`Scale.needs`). Otherwise those
            that the user chooses stay as they are, and may end the values that are possible.
    """

    component: Literal["model", "dataset"]
    setting: str
    name: str
    lowest: int = 1
    highest: int | None = None
    multiple: int = 1
    multiple_of: str = ""
    has_needs: bool = True

    def __str__(self) -> str:
        return self.name


AnyAxis: TypeAlias = Axis | ScaledSetting
