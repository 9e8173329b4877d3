"""Hints for common mistakes in tasks and models that are tried on a few rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from xbench.components.metric import Batch
from xbench.training.nested import list_tensors


def hint_failure(error: Exception, model: nn.Module, batch: Batch) -> str:
    """Suggest a fix for a failure whose message reveals the cause; return "" for others.

    Args:
        model: the model that failed.
        batch: the batch that the model and the task failed on.
    """
    text = str(error)
    if isinstance(error, IndexError) and "out of range in self" in text:
        return _hint_embedding(model, batch)
    if isinstance(error, IndexError) and text.startswith("Target "):
        return "a class label is too large or negative for the number of the model's outputs"
    if "expected target dtype to be Long" in text or "expected scalar type Long" in text:
        return "class labels must be int64: convert them with `labels.long()`"
    if isinstance(batch, Mapping) and isinstance(error, AttributeError | TypeError) and "dict" in text:
        key = next(iter(batch), "x")
        return (
            "a batch is a dict, and the model is called with all of it: set "
            f'`outputs=lambda model, batch: model(batch["{key}"])` in the Task'
        )
    return ""


def hint_broadcast(shapes: Sequence[tuple[int, ...]], batch: Batch) -> str:
    """Name outputs and targets that torch broadcasts against each other: (n, 1) and (n,); "" if none are.

    Args:
        shapes: shapes of the outputs of the model.
        batch: a tuple whose parts but the first may be targets.
    """
    targets = batch[1:] if isinstance(batch, tuple | list) else []
    for target in map(tuple, (tensor.shape for tensor in list_tensors(targets))):
        for shape in shapes:
            if {target, shape} == {shape[:1], (*shape[:1], 1)}:
                return (
                    f"outputs {shape} against targets {target} are broadcast to {(*shape[:1], *shape[:1])}: "
                    "give both the same shape, for example with `squeeze(1)` or `unsqueeze(1)`"
                )
    return ""


def _hint_embedding(model: nn.Module, batch: Batch) -> str:
    """Say which embedding has too few rows for the indices of a batch; "" if none has."""
    highest = max((int(t.max()) for t in list_tensors(batch) if _holds_indices(t)), default=-1)
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and module.num_embeddings <= highest:
            return (
                f"the embedding '{name}' has {module.num_embeddings:,} rows, and the batch has the index "
                f"{highest:,}: raise the setting of the model that says how many there are"
            )
    return ""


def _holds_indices(tensor: torch.Tensor) -> bool:
    return tensor.numel() > 0 and not tensor.is_floating_point() and not tensor.is_complex()
