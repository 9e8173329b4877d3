"""Whether an optimizer can take what a model offers."""

from __future__ import annotations

from torch import nn

from xbench.components.specs import OptimizerSpec


def unmet_requirement(spec: OptimizerSpec, name: str, model: nn.Module) -> str | None:
    """Why the optimizer cannot train this model, in one line, or None if it can."""
    trained = [(key, p) for key, p in model.named_parameters() if p.requires_grad]
    if spec.parameters == "matrices":
        others = [(key, tuple(p.shape)) for key, p in trained if p.ndim != 2]
        if others:
            key, shape = others[0]
            return (
                f"{name} takes 2-D parameters only; {len(others)} of {len(trained)} are not, as {key} {shape}"
            )
    sparse = _sparse_parameters(model)
    if spec.gradients == "sparse" and len(sparse) < len(trained):
        return f"{name} takes sparse gradients only; {len(trained) - len(sparse)} of {len(trained)} are dense"
    if spec.gradients == "dense" and sparse:
        return f"{name} takes dense gradients only; {sparse[0]} has sparse ones"
    return None


def _sparse_parameters(model: nn.Module) -> list[str]:
    return [
        f"{key}.weight"
        for key, module in model.named_modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse
    ]
