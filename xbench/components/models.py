"""Built-in models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xbench.components.specs import ModelSpec

if TYPE_CHECKING:
    from torch import nn


def build_report_cnn(num_classes: int) -> nn.Module:
    """Build the CNN of the 2021 report: three convolutions, three max-poolings, three fully connected layers.

    The feature maps have sides of 224, 220, 73, 69, 23, 19 and 6 pixels. Ten channels of 6 x 6 pixels are the
    360 inputs of the first fully connected layer, the widest in the report. The 6 channels of the first layer
    follow from the size of the allocation that failed in the report. The widths 16, 120 and 60 are a guess.

    Args:
        num_classes: number of logits.

    Returns:
        A module from (N, 3, 224, 224) to (N, num_classes).
    """
    from torch import nn

    def block(in_channels: int, out_channels: int) -> list[nn.Module]:
        # Pooling and ReLU commute, and after pooling, ReLU processes only a ninth of the elements.
        return [nn.Conv2d(in_channels, out_channels, kernel_size=5), nn.MaxPool2d(3), nn.ReLU()]

    return nn.Sequential(
        *block(3, 6),
        *block(6, 16),
        *block(16, 10),
        nn.Flatten(),
        nn.Linear(360, 120),
        nn.ReLU(),
        nn.Linear(120, 60),
        nn.ReLU(),
        nn.Linear(60, num_classes),
    )


REPORT_CNN = ModelSpec(
    factory=build_report_cnn,
    summary="the CNN of the 2021 report: 3 convolutions, 3 poolings, 3 fully connected layers",
    input_shape=(3, 224, 224),
)
