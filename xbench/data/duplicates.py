"""Find images with the same content in both train and test, or in two classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from xbench.components.image_dataset import Example

_MAX_NAMED = 3


@dataclass(frozen=True)
class Duplicates:
    """Copies of images that make results doubtful, which copies within one class and split do not.

    Attributes:
        in_test: (test image, training image) for each test image that is a copy of a training image.
        across_classes: (image, copy) for each image that has a copy in another class.
        test: the number of test images.
        total: the number of images.
        contents: int64 array (images,): numbers of the images' contents, equal for exact copies.
    """

    in_test: tuple[tuple[str, str], ...] = ()
    across_classes: tuple[tuple[str, str], ...] = ()
    test: int = 0
    total: int = 0
    contents: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64), compare=False)

    @property
    def warnings(self) -> list[str]:
        """Warnings for readers of the results."""
        warnings = []
        if self.in_test:
            warnings.append(
                f"{len(self.in_test):,} of {self.test:,} test images are copies of training images, so test "
                f"metrics are optimistic: {list_some(self.in_test)}"
            )
        if self.across_classes:
            warnings.append(
                f"{len(self.across_classes):,} of {self.total:,} images have a copy in another class, which "
                f"contradicts their label: {list_some(self.across_classes)}"
            )
        return warnings


NO_DUPLICATES = Duplicates()


def find_duplicates(examples: Sequence[Example], hashes: Sequence[str | None]) -> Duplicates:
    """Compare images by the hashes of their content.

    Args:
        examples: the readable images, sorted by name.
        hashes: the content hash of each. Examples with neither file nor content are not compared.
    """
    numbers: dict[str, int] = {}
    contents = np.empty(len(examples), np.int64)
    copies: dict[int, list[Example]] = {}
    for row, (example, content) in enumerate(zip(examples, hashes, strict=True)):
        is_known = content is not None and (example.path is not None or example.content)
        contents[row] = numbers.setdefault(content if content and is_known else f"row {row}", len(numbers))
        copies.setdefault(int(contents[row]), []).append(example)
    in_test, across = [], []
    for group in copies.values():
        original = next((example for example in group if example.split == "train"), None)
        if original is not None:
            in_test += [(example.name, original.name) for example in group if example.split == "test"]
        if len({example.label for example in group}) > 1:
            across += [
                (example.name, next(other.name for other in group if other.label != example.label))
                for example in group
            ]
    return Duplicates(
        tuple(sorted(in_test)),
        tuple(sorted(across)),
        sum(example.split == "test" for example in examples),
        len(examples),
        contents,
    )


def list_some(pairs: Sequence[tuple[str, str]], verb: str = "is") -> str:
    """Name the first pairs of images, and count the others."""
    named = "; ".join(f"{name} {verb} {other}" for name, other in pairs[:_MAX_NAMED])
    more = f"; and {len(pairs) - _MAX_NAMED:,} more" if len(pairs) > _MAX_NAMED else ""
    return named + more
