"""The optimizers of the package heavyball as an xbench plugin. Importing this module imports neither."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xbench import Family, OptimizerSpec, XbenchError

from xbench_heavyball.catalogue import HESSIAN_VARIANTS, OPTIMIZERS, UNFIT, WRAPPER, Entry

__all__ = ["FAMILY", "get_spec", "list_members"]


def list_members() -> list[str]:
    """List the classes of heavyball, and those of them that are wrapped or use second derivatives."""
    variants = [f"{name}-{variant}" for variant, names in HESSIAN_VARIANTS.items() for name in names]
    return [*OPTIMIZERS, *variants, *(f"{WRAPPER}-{name}" for name in OPTIMIZERS), *UNFIT]


def get_spec(name: str) -> OptimizerSpec:
    """Return the spec of a member.

    Raises:
        KeyError: the member is unknown.
        XbenchError: it cannot serve; the message says why.
    """
    from xbench_heavyball.factories import make_factory

    if name in UNFIT:
        raise XbenchError(f"heavyball.{name} cannot serve: {UNFIT[name]}")
    if name == WRAPPER:
        raise XbenchError(
            f"{WRAPPER} wraps another optimizer, so its name must say which",
            hint=f"for example `heavyball/{WRAPPER}-AdamW`",
        )
    wrapped, _, variant = name.partition("-")
    if wrapped == WRAPPER:
        wrapped, variant = variant, wrapped
    entry = OPTIMIZERS[wrapped]
    return OptimizerSpec(
        factory=make_factory(wrapped, variant),
        summary=_write_summary(entry, variant),
        reference="https://arxiv.org/abs/2102.11600" if variant == WRAPPER else entry.reference,
        resumable=True,
        state_vectors=lambda settings: count_vectors(entry, settings),
        memory_period=entry.memory_period,
        backward="create_graph" if variant == "Hessian" else "plain",
    )


def count_vectors(entry: Entry, settings: Mapping[str, Any]) -> float | None:
    """Count the vectors of state; None if the number depends on shapes, or the state is not in float32."""
    if entry.vectors is None or settings.get("storage_dtype", "float32") != "float32" or settings.get("ecc"):
        return None
    vectors = entry.vectors + bool(settings.get("mars"))  # which keeps the last gradient
    return vectors * 4 / settings["element_bytes"] + entry.copies


def _write_summary(entry: Entry, variant: str) -> str:
    additions = {
        "Hessian": "; its preconditioner is fitted to products with the Hessian",
        "FiniteDifferences": "; its preconditioner is fitted to differences of two gradients",
        WRAPPER: ", at the worst point nearby (ASAM); two closure calls per step",
    }
    return entry.summary + additions.get(variant, "")


FAMILY = Family(
    member=get_spec,
    members=list_members,
    summary="optimizers of the package heavyball: Muon, SOAP, PSGD, schedule-free and others",
    reference="https://github.com/HomebrewML/HeavyBall",
)
