"""Check whether an optimizer can train a model's parameters."""

from __future__ import annotations

from torch import nn

from xbench.components.specs import OptimizerSpec


def find_unmet_requirement(spec: OptimizerSpec, name: str, model: nn.Module) -> str | None:
    """Explain in one line why an optimizer cannot train a model; return None if it can."""
    trained = [(key, p) for key, p in model.named_parameters() if p.requires_grad]
    if spec.parameters == "matrices":
        others = [(key, tuple(p.shape)) for key, p in trained if p.ndim != 2]
        if others:
            key, shape = others[0]
            return (
                f"{name} takes 2-D parameters only, but {len(others)} of {len(trained)} are not, such as "
                f"{key} {shape}"
            )
    sparse = _find_sparse_parameters(model)
    if spec.gradients == "sparse" and len(sparse) < len(trained):
        dense = len(trained) - len(sparse)
        return f"{name} takes sparse gradients only, but {dense} of {len(trained)} are dense"
    if spec.gradients == "dense" and sparse:
        return f"{name} takes dense gradients only, but {sparse[0]} has sparse ones"
    return None


def _find_sparse_parameters(model: nn.Module) -> list[str]:
    return [
        f"{key}.weight"
        for key, module in model.named_modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse
    ]
