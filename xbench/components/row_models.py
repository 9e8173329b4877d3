"""Built-in models of datasets that are made of rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from xbench.components.facts import Facts, first_tensor
from xbench.components.setting_ranges import check_integer, check_number
from xbench.components.specs import ModelSpec
from xbench.errors import XbenchError

if TYPE_CHECKING:
    from torch import Tensor, nn

Activation = Literal["relu", "tanh", "gelu", "silu", "sigmoid"]

MAX_LAYERS = 1000
MAX_WIDTH = 1_000_000
MAX_SIDE = 100_000_000


def build_mlp(facts: Facts, hidden: tuple[int, ...] = (64, 64), activation: Activation = "relu") -> nn.Module:
    """Build a multilayer perceptron: fully connected layers with an activation between them.

    Weights start as torch's `Linear` sets them.

    Args:
        facts: rows whose first tensor holds the inputs, which are flattened.
        hidden: widths of the hidden layers; empty for a linear model.
        activation: `"relu"`, `"tanh"`, `"gelu"`, `"silu"` or `"sigmoid"`.

    Returns:
        A module from (n, ...) to (n, outputs).

    Raises:
        XbenchError: a setting is out of range, or the rows do not suit the model.
    """
    from torch import nn

    activations = {
        "relu": nn.ReLU,
        "tanh": nn.Tanh,
        "gelu": nn.GELU,
        "silu": nn.SiLU,
        "sigmoid": nn.Sigmoid,
    }
    if activation not in activations:
        raise XbenchError(
            f"mlp: activation = {activation!r} is not valid",
            hint=f"set activation to one of {', '.join(activations)}",
        )
    if len(hidden) > MAX_LAYERS:
        raise XbenchError(f"mlp: hidden has {len(hidden):,} layers, and at most {MAX_LAYERS:,} are allowed")
    for width in hidden:
        check_integer("mlp", "each width of hidden", width, 1, MAX_WIDTH)
    inputs, outputs = count_inputs_and_outputs("mlp", facts)
    layers: list[nn.Module] = [_build_flattening(facts)]
    for width in hidden:
        layers += [nn.Linear(inputs, width), activations[activation]()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def build_linear(facts: Facts, bias: bool = False) -> nn.Module:
    """Build a linear model whose weights start at zero.

    For a convex loss, the start does not matter to the minimum. At zero, every seed starts from the same
    loss, so runs differ only by their optimizers, and the first loss is known: log 2 for a logistic
    regression.

    Args:
        facts: rows whose first tensor holds the inputs, which are flattened.
        bias: whether to add a constant to each output. The minima that xbench knows of convex problems are
            those without.

    Returns:
        A module from (n, ...) to (n, outputs).

    Raises:
        XbenchError: the rows do not suit the model.
    """
    from torch import nn

    layer = nn.Linear(*count_inputs_and_outputs("linear", facts), bias=bias)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return nn.Sequential(_build_flattening(facts), layer)


def build_factorisation(
    facts: Facts, shape: tuple[int, int] = (200, 100), rank: int = 5, std: float = 0.1
) -> nn.Module:
    """Build the product of two matrices, one row of each for every row and column of a matrix.

    Both start as normal random numbers. They cannot start at zero, where all gradients are zero.

    Args:
        facts: rows whose first tensor holds the two indices of an entry.
        shape: numbers of rows and columns of the matrix, as in the dataset.
        rank: number of columns of the two factors.
        std: standard deviation of the first factors' entries.

    Returns:
        A module from indices (n, 2) to entries (n, 1).

    Raises:
        XbenchError: a setting is out of range, or the rows do not hold pairs of indices.
    """
    import torch
    from torch import nn

    if len(shape) != 2:
        raise XbenchError(f"factorisation: shape = {shape!r} is not the two sides of a matrix")
    for side in shape:
        check_integer("factorisation", "each side of shape", side, 1, MAX_SIDE)
    check_integer("factorisation", "rank", rank, 1, MAX_WIDTH)
    check_number("factorisation", "std", std, 0)
    first = first_tensor(facts.row)
    if first.shape != (2,) or first.dtype not in ("int64", "int32"):
        raise XbenchError(
            "the model 'factorisation' needs two indices per row, of shape (2,) and dtype int64, and the "
            f"first tensor of these rows has shape {first.shape} and dtype {first.dtype}"
        )

    class Factorisation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shape = tuple(shape)
            self.left = nn.Embedding(shape[0], rank)
            self.right = nn.Embedding(shape[1], rank)
            for factor in (self.left, self.right):
                nn.init.normal_(factor.weight, std=std)

        def forward(self, indices: Tensor) -> Tensor:
            left, right = self.left(indices[:, 0]), self.right(indices[:, 1])
            return torch.sum(left * right, dim=1, keepdim=True)

    return Factorisation()


def build_point(facts: Facts, spread: float = 0.0) -> nn.Module:
    """Build a model that is a point: the start that a row holds, plus the trained displacement from it.

    Derivatives by the displacement are those by the point. Weight decay pulls towards the start.

    Args:
        facts: rows whose first tensor is the point to start from.
        spread: standard deviation of the normal random numbers that the displacement starts with; at 0, every
            seed starts from the row's point.

    Returns:
        A module from starts (n, dimension) to points (n, dimension).

    Raises:
        XbenchError: `spread` is out of range, or the rows do not hold points.
    """
    import torch
    from torch import nn

    check_number("point", "spread", spread, 0)
    first = first_tensor(facts.row)
    if len(first.shape) != 1 or not _is_floating(first.dtype):
        raise XbenchError(
            "the model 'point' needs a point per row, of shape (dimension,) and a floating-point dtype, and "
            f"the first tensor of these rows has shape {first.shape} and dtype {first.dtype}"
        )

    class Point(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.displacement = nn.Parameter(spread * torch.randn(first.shape))

        def forward(self, start: Tensor) -> Tensor:
            return start + self.displacement

    return Point()


def count_inputs_and_outputs(model: str, facts: Facts) -> tuple[int, int]:
    """Return the numbers of inputs and outputs of a model that maps a row of numbers to a row of numbers.

    Args:
        model: name of the model, for messages.

    Raises:
        XbenchError: the first tensor of the rows does not hold floating-point numbers, or the task does not
            ask for one row of outputs.
    """
    first, output = first_tensor(facts.row), facts.output
    if output is None or output.kind == "tokens":
        asked = "does not say what a model returns" if output is None else "asks for tokens"
        hint = "choose a model of tokens, such as gpt-mini"
        if output is None:
            hint = (
                'let its Task say it: output=Output("values", 1) for one number, or '
                'output=Output("classes", 3) for a logit of each of three classes'
            )
        raise XbenchError(f"the model '{model}' returns a row of numbers, and the task {asked}", hint)
    if not _is_floating(first.dtype):
        shape = ", ".join(["n", *map(str, first.shape)])
        raise XbenchError(
            f"the model '{model}' maps floating-point numbers to outputs of shape (n, {output.size}), and "
            f"the first tensor of these rows has shape ({shape}) and dtype {first.dtype}"
        )
    return math.prod(first.shape), output.size


def _build_flattening(facts: Facts) -> nn.Module:
    """Build a module from (n, ...) to (n, inputs)."""
    from torch import nn

    return nn.Flatten() if facts.input_shape else nn.Unflatten(0, (-1, 1))


def _is_floating(dtype: str) -> bool:
    return dtype.startswith(("float", "bfloat"))


MLP = ModelSpec(
    factory=build_mlp, summary="multilayer perceptron: fully connected layers for rows of numbers"
)
LINEAR = ModelSpec(factory=build_linear, summary="linear model for rows of numbers; starts at zero")
FACTORISATION = ModelSpec(
    factory=build_factorisation, summary="low-rank matrix: the product of two trained factors"
)
POINT = ModelSpec(
    factory=build_point, summary="a point in space, to minimise a function of it; starts where the row says"
)
