"""Optimizers with state of 4 or 8 bits as an xbench plugin. Importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from xbench import Family, OptimizerSpec, XbenchError

from xbench_8bit import catalogue

__all__ = ["BITSANDBYTES", "TORCHAO"]


def _get_torchao_spec(name: str) -> OptimizerSpec:
    _check_fit("torchao", name, catalogue.TORCHAO_UNFIT)
    from xbench_8bit.torchao_factories import make_factory

    summary, reference = catalogue.TORCHAO[name]
    return OptimizerSpec(factory=make_factory(name), summary=summary, reference=reference, resumable=True)


def _get_bitsandbytes_spec(name: str) -> OptimizerSpec:
    _check_fit("bitsandbytes", name, catalogue.BITSANDBYTES_UNFIT)
    from xbench_8bit.bitsandbytes_factories import make_factory

    summary, reference, vectors = catalogue.BITSANDBYTES[name]
    is_always_8_bit = name.endswith("8bit")

    def count_vectors(settings: Mapping[str, Any]) -> float | None:
        is_8_bit = is_always_8_bit or settings.get("optim_bits") == 8
        if is_8_bit:
            return None  # small tensors are not quantised
        return vectors if name == "PytorchLARS" else vectors * 4 / settings["element_bytes"]

    return OptimizerSpec(
        factory=make_factory(name),
        summary=summary,
        reference=reference,
        resumable=True,
        state_vectors=count_vectors,
    )


def _check_fit(package: str, name: str, unfit: Mapping[str, str]) -> None:
    """Check that a member of a package can serve.

    Raises:
        XbenchError: it cannot.
    """
    if name in unfit:
        raise XbenchError(f"{package}'s {name} cannot serve: {unfit[name]}")


def _lister(served: Mapping[str, Any], unfit: Mapping[str, str]) -> Callable[[], list[str]]:
    return lambda: [*served, *unfit]


TORCHAO = Family(
    member=_get_torchao_spec,
    members=_lister(catalogue.TORCHAO, catalogue.TORCHAO_UNFIT),
    summary="Adam and AdamW with state of 4 or 8 bits, of the package torchao",
    reference=catalogue.TORCHAO_PAGE,
)
BITSANDBYTES = Family(
    member=_get_bitsandbytes_spec,
    members=_lister(catalogue.BITSANDBYTES, catalogue.BITSANDBYTES_UNFIT),
    summary="optimizers with state of 8 or 32 bits, of the package bitsandbytes",
    reference=catalogue.EIGHT_BIT,
)
