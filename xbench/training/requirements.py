"""Check whether an optimizer can train a model's parameters."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from xbench.components.roles import Role
from xbench.components.settings import explain_whole_batches
from xbench.errors import DependentExamples, Unsupported
from xbench.training.optimizer import MATRICES, REST, LoadedOptimizer, Named


def check_requirements(optimizer: LoadedOptimizer, model: nn.Module, roles: Mapping[str, Role]) -> None:
    """Check that an optimizer can train a model.

    Args:
        roles: the roles of the model's trained parameters, by name.

    Raises:
        Unsupported: it cannot; the message says why, in one line.
    """
    divided = optimizer.divide(model, roles)
    if optimizer.rest is not None and MATRICES not in divided:
        raise Unsupported(_explain_no_matrices(optimizer, divided[REST]))
    sparse = _find_sparse_parameters(model)
    for part, named in divided.items():
        who = optimizer.rest if part == REST and optimizer.rest is not None else optimizer
        found = [name for name, _ in named if name in sparse]
        if who.spec.gradients == "sparse" and len(found) < len(named):
            dense = len(named) - len(found)
            raise Unsupported(
                f"{who.name} takes sparse gradients only, but {dense} of {len(named)} are dense"
            )
        if who.spec.gradients == "dense" and found:
            raise Unsupported(f"{who.name} takes dense gradients only, but {found[0]} has sparse ones")


def check_parts_are_allowed(optimizer: LoadedOptimizer) -> None:
    """Check that an optimizer can use gradients that were accumulated over micro-batches.

    Raises:
        DependentExamples: its backward pass needs the whole batch.
    """
    if optimizer.spec.backward != "plain":
        raise DependentExamples(explain_whole_batches(optimizer.name, optimizer.spec.backward))


def _explain_no_matrices(optimizer: LoadedOptimizer, named: Named) -> str:
    kernels = sum(p.ndim > 2 for _, p in named)
    left = f"; it does not take the {kernels} kernels of convolutions" if kernels else ""
    return (
        f"{optimizer.name} updates the matrices of hidden layers, and this model has none{left}: all "
        f"{len(named)} parameters would be left to {optimizer.rest.name if optimizer.rest else REST}"
    )


def _find_sparse_parameters(model: nn.Module) -> set[str]:
    return {
        f"{key}.weight" if key else "weight"
        for key, module in model.named_modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse
    }
