"""Compare the size of a model's outputs with the one that its task declares."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from xbench.components.facts import Output
from xbench.errors import XbenchError

_DECLARED = {
    "classes": "one logit per class",
    "tokens": "one logit per token of the vocabulary",
    "values": "the values of a row",
}

_HINTS = {
    "classes": "give the model's last layer as many outputs as there are classes",
    "tokens": "give the model's last layer as many outputs as there are tokens in the vocabulary",
    "values": "change the model's last layer, or the size of `output` in the Task",
}


@contextmanager
def watch_outputs(model: nn.Module) -> Iterator[list[tuple[int, ...]]]:
    """Collect the shapes of the tensors that a model returns. Outputs that are not tensors are ignored."""
    shapes: list[tuple[int, ...]] = []

    def note(module: nn.Module, inputs: object, returned: object) -> None:
        if isinstance(returned, torch.Tensor):
            shapes.append(tuple(returned.shape))

    handle = model.register_forward_hook(note)
    try:
        yield shapes
    finally:
        handle.remove()


def check_output_size(
    shapes: Sequence[tuple[int, ...]], output: Output | None, model: str, dataset: str, hint: str = ""
) -> None:
    """Check that a model returned outputs of the declared size at least once.

    The size is that of the last dimension. Logits of classes may also be in the second one, as torch's losses
    take them, and a row's values may have any shape.

    Args:
        shapes: shapes of the batches that the model returned.
        output: the task's declaration; None if it does not say.
        model, dataset: their names, for the message.
        hint: hint for the message; "" for the usual one.

    Raises:
        XbenchError: none of the outputs has the declared size.
    """
    if output is None or not shapes or any(_fits(shape, output) for shape in shapes):
        return
    raise XbenchError(
        f"model '{model}' returns outputs of shape {shapes[0]}, and the task of dataset '{dataset}' declares "
        f"a last dimension of {output.size}: {_DECLARED[output.kind]}",
        hint=hint or _HINTS[output.kind],
    )


def _fits(shape: tuple[int, ...], output: Output) -> bool:
    if shape[-1:] == (output.size,):
        return True
    if output.kind == "classes":
        return shape[1:2] == (output.size,)
    return output.kind == "values" and math.prod(shape[1:]) == output.size
