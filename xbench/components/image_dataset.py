"""Define what the factory of a dataset of images returns: labelled images that are not yet read.

That of a dataset of rows returns a `RowDataset` (see `components.tasks`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from xbench.errors import XbenchError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Example:
    """One image of a dataset, not yet read.

    Attributes:
        name: name that is unique within the dataset and the same on every machine, such as a relative path.
        label: index into `Dataset.classes`.
        split: `"test"`, which is never trained on, or `"train"`, which validation is held out of.
        group: name of a group (a patient, say) whose examples are never on both sides of a split; "" for
            none.
        path: file that the image is read from. Its content then identifies the image.
        content: string that identifies an image without a file (generator, version, seed, index), or
            anything besides the file that the pixels depend on, such as a crop. Images with the same name,
            file, content and shape share one decoded copy in the cache.
    """

    name: str
    label: int
    split: Literal["train", "test"]
    group: str = ""
    path: Path | None = None
    content: str = ""


@dataclass(frozen=True)
class Dataset:
    """A dataset of labelled images, as its factory returns it. The task is classification.

    Attributes:
        classes: class names, in the order of labels.
        positive: the class that recall, precision and AUC refer to if there are two classes.
        shape: (channels, height, width) of every image.
        examples: all examples of both splits.
        read: `read(example)` returns a uint8 or uint16 array of shape (height, width, channels). xbench
            scales all uint16 images of the set to 8 bits by the same factor, which follows from the highest
            value among them. Several threads call it, once or twice per distinct image. If it raises, the
            image counts as unreadable, and the exception is the reason.
        notes: facts that readers of the results must know, such as how a split was made.

    Raises:
        XbenchError: on construction, if the fields contradict each other.
    """

    classes: tuple[str, ...]
    positive: str
    shape: tuple[int, int, int]
    examples: tuple[Example, ...]
    read: Callable[[Example], np.ndarray]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.positive not in self.classes:
            raise XbenchError(f"the positive class '{self.positive}' is not one of {', '.join(self.classes)}")
        if len(self.classes) < 2:
            raise XbenchError(f"a dataset needs at least 2 classes, and this one has {len(self.classes)}")
        names: set[str] = set()
        split_of_group: dict[str, str] = {}
        for example in self.examples:
            if example.group and split_of_group.setdefault(example.group, example.split) != example.split:
                raise XbenchError(f"group '{example.group}' is in both train and test")
            if example.label not in range(len(self.classes)):
                raise XbenchError(
                    f"example '{example.name}' has label {example.label}, not one of 0 to "
                    f"{len(self.classes) - 1}"
                )
            if example.split not in ("train", "test"):
                raise XbenchError(
                    f"example '{example.name}' is in split '{example.split}', not in train or test"
                )
            if example.name in names:
                raise XbenchError(f"two examples are named '{example.name}'")
            names.add(example.name)
