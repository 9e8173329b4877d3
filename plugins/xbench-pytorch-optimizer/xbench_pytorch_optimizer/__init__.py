"""The optimizers of the package pytorch_optimizer, as a family: `pytorch-optimizer/NAME`.

Importing this module imports neither torch nor pytorch_optimizer.
"""

from __future__ import annotations

from importlib.metadata import entry_points

from xbench import Family, OptimizerSpec

from xbench_pytorch_optimizer.catalogue import ENTRIES, NAMES, TORCH

__all__ = ["FAMILY", "load_member"]


def load_member(name: str) -> OptimizerSpec:
    """Make the spec of one optimizer.

    Args:
        name: the package's name of it, in lower case.

    Raises:
        KeyError: the optimizer is unknown.
    """
    if name in TORCH:
        (entry_point,) = {e.value: e for e in entry_points(group="xbench.optimizers", name=name)}.values()
        return entry_point.load()
    entry = ENTRIES[name]
    return OptimizerSpec(
        factory=f"xbench_pytorch_optimizer.factories:{name}",
        summary=entry.summary,
        reference=entry.reference,
        state_vectors=entry.vectors,
        **entry.fields,
    )


FAMILY = Family(
    member=load_member,
    members=lambda: NAMES,
    summary=f"{len(NAMES)} optimizers of the package pytorch_optimizer",
    reference="https://pytorch-optimizers.readthedocs.io",
)
