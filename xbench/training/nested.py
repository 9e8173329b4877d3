"""Nested tuples, lists and dicts of tensors, such as batches and outputs. Other leaves stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from xbench.components.facts import TensorFacts


def map_tensors(change: Callable[[torch.Tensor], Any], nested: Any) -> Any:
    """Apply a function to each tensor, and return the results in the same structure."""
    if isinstance(nested, torch.Tensor):
        return change(nested)
    if isinstance(nested, tuple) and hasattr(nested, "_fields"):  # a named tuple
        return type(nested)(*(map_tensors(change, value) for value in nested))
    if isinstance(nested, (tuple, list)):
        return type(nested)([map_tensors(change, value) for value in nested])
    if isinstance(nested, Mapping):  # last: an abstract class takes longer to check
        return {key: map_tensors(change, value) for key, value in nested.items()}
    return nested


def replace_first(nested: Any, tensor: torch.Tensor) -> Any:
    """Replace the first tensor in the order of the structure."""
    left = iter([tensor])
    return map_tensors(lambda held: next(left, held), nested)


def list_tensors(nested: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in the order of the structure."""
    return (leaf for leaf in list_leaves(nested) if isinstance(leaf, torch.Tensor))


def list_leaves(nested: Any) -> Iterator[Any]:
    """Yield the tensors and the other leaves in the order of the structure."""
    if isinstance(nested, Mapping | tuple | list):
        for value in nested.values() if isinstance(nested, Mapping) else nested:
            yield from list_leaves(value)
    else:
        yield nested


def convert(nested: Any, dtype: torch.dtype) -> Any:
    """Convert floating-point tensors to a dtype; others, such as labels, stay as they are."""
    return map_tensors(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor, nested)


def count_bytes(nested: Any) -> int:
    """Count the bytes of all tensors."""
    return sum(tensor.nbytes for tensor in list_tensors(nested))


def count_rows(batch: Any) -> int:
    """Return the number of rows of a batch: the first dimension of its first tensor."""
    return len(next(list_tensors(batch)))


def find_nonfinite_rows(batch: Any) -> list[int]:
    """Return the places of the rows that hold NaN or an infinite value."""
    wrong: set[int] = set()
    for tensor in list_tensors(batch):
        finite = torch.isfinite(tensor)
        if not finite.all():
            wrong.update(torch.nonzero(~finite)[:, 0].tolist())
    return sorted(wrong)


def describe_row(batch: Any) -> Any:
    """Replace each tensor of a batch by the shape of one row and its dtype."""
    return map_tensors(
        lambda tensor: TensorFacts(tuple(tensor.shape[1:]), str(tensor.dtype).removeprefix("torch.")), batch
    )


def hash_nested(digest: Any, nested: Any) -> None:
    """Update a hash with the structure and content of nested tensors; anything else counts by its `repr`."""
    if isinstance(nested, torch.Tensor):
        digest.update(f"{tuple(nested.shape)} {nested.dtype}".encode())
        digest.update(nested.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    elif isinstance(nested, Mapping):
        for key, value in nested.items():
            digest.update(repr(key).encode())
            hash_nested(digest, value)
    elif isinstance(nested, tuple | list):
        digest.update(str(len(nested)).encode())
        for value in nested:
            hash_nested(digest, value)
    else:
        digest.update(repr(nested).encode())
