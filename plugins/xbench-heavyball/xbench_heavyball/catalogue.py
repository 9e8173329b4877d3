"""What is known of each optimizer: its method, source and state, or why it cannot serve."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_HEAVYBALL = "https://github.com/HomebrewML/HeavyBall"
_MUON = "https://kellerjordan.github.io/posts/muon/"
_ADAMW, _NADAM = "https://arxiv.org/abs/1711.05101", "https://cs229.stanford.edu/proj2015/054_report.pdf"
_ADEMAMIX, _LAPROP = "https://arxiv.org/abs/2409.03137", "https://arxiv.org/abs/2002.04839"
_SOAP, _KL = "https://arxiv.org/abs/2409.11321", "https://arxiv.org/abs/2509.03378"
_ORTHOGRAD, _PSGD = "https://arxiv.org/abs/2501.04697", "https://arxiv.org/abs/1512.04202"


def _find_period(settings: Mapping[str, Any]) -> int:
    """Count the steps from one update of the preconditioner to the next."""
    return settings["precondition_frequency"]


@dataclass(frozen=True)
class Entry:
    """An optimizer of heavyball.

    Attributes:
        summary: what it does, in one line.
        reference: paper or page of the method.
        vectors: vectors of state with float32 storage; None if the number depends on shapes.
        copies: vectors of state that always have the dtype of the parameters.
        memory_period: as in `xbench.OptimizerSpec`.
    """

    summary: str
    reference: str
    vectors: float | None = None
    memory_period: Callable[[Mapping[str, Any]], int] | None = None
    copies: float = 0


OPTIMIZERS = {
    "ADOPT": Entry(
        "Adam that converges with any second beta: it divides by the previous second moment",
        "https://arxiv.org/abs/2411.02853",
        2,
    ),
    "AdEMAMix": Entry("Adam with a fast and a slow average of the gradient", _ADEMAMIX, 3),
    "AdamC": Entry(
        "AdamW whose weight decay shrinks with the learning rate", "https://arxiv.org/abs/2506.02285", 2
    ),
    "AdamW": Entry("Adam with decoupled weight decay", _ADAMW, 2),
    "HeavyKLSOAP": Entry("KLSOAP with another update of the eigenbasis", _HEAVYBALL, None, _find_period),
    "HeavyKLShampoo": Entry("KLShampoo that inverts with a pseudoinverse", _HEAVYBALL, None, _find_period),
    "HeavySOAP": Entry("SOAP with another update of the eigenbasis", _HEAVYBALL, None, _find_period),
    "HeavySOAPAdEMAMix": Entry(
        "SOAPAdEMAMix with another update of the eigenbasis", _HEAVYBALL, None, _find_period
    ),
    "HeavySOAPNAdam": Entry(
        "SOAPNAdam with another update of the eigenbasis", _HEAVYBALL, None, _find_period
    ),
    "HeavySOLP": Entry("SOLP with another update of the eigenbasis", _HEAVYBALL, None, _find_period),
    "HyperBallAdamW": Entry(
        "RMSprop that keeps the norm of matrices and kernels at its initial value", _HEAVYBALL, 1
    ),
    "KLSOAP": Entry("SOAP whose factors minimise a Kullback-Leibler divergence", _KL, None, _find_period),
    "KLShampoo": Entry(
        "Shampoo whose factors minimise a Kullback-Leibler divergence", _KL, None, _find_period
    ),
    "LATHER": Entry("Adam in the approximate eigenbasis of PSGD's Kronecker preconditioner", _PSGD),
    "LaProp": Entry("Adam that averages the gradient after scaling it", _LAPROP, 2),
    "LaPropOrtho": Entry("LaProp, then without the part of the update along the weights", _ORTHOGRAD, 2),
    "MSAMLaProp": Entry(
        "RMSprop at a point ahead along the momentum, as SAM without a second gradient",
        "https://arxiv.org/abs/2401.12033",
        2,
        copies=1,
    ),
    "Muon": Entry("orthogonalised momentum for matrices and kernels; plain momentum for vectors", _MUON, 1),
    "MuonAdamW": Entry("Muon for matrices and kernels, AdamW for vectors", _MUON),
    "MuonLaProp": Entry("orthogonalised LaProp for matrices and kernels; LaProp for vectors", _MUON, 2),
    "NAdam": Entry("Adam with Nesterov momentum", _NADAM, 2),
    "OrthoLaProp": Entry("LaProp on gradients without their part along the weights", _ORTHOGRAD, 2),
    "PSGDKron": Entry("SGD with momentum and a learned Kronecker-factored preconditioner", _PSGD),
    "PSGDLRA": Entry("SGD with momentum and a learned low-rank preconditioner for all weights", _PSGD),
    "PSGDPRO": Entry("PSGDKron whose factors stay nearly symmetric and positive definite", _PSGD),
    "QSGD": Entry("PSGDPRO with the square root of the preconditioner; nothing is quantised", _PSGD),
    "RMSprop": Entry("RMSprop with bias correction", _HEAVYBALL, 1),
    "SFAdamW": Entry("schedule-free AdamW", "https://arxiv.org/abs/2405.15682", 1, copies=1),
    "SGD": Entry("stochastic gradient descent with momentum", _HEAVYBALL, 1),
    "SOAP": Entry("Adam in the eigenbasis of Shampoo's preconditioner", _SOAP, None, _find_period),
    "SOAPAdEMAMix": Entry(
        "AdEMAMix in the eigenbasis of Shampoo's preconditioner", _SOAP, None, _find_period
    ),
    "SOAPNAdam": Entry("NAdam in the eigenbasis of Shampoo's preconditioner", _SOAP, None, _find_period),
    "SOLP": Entry("LaProp in the eigenbasis of Shampoo's preconditioner", _SOAP, None, _find_period),
    "SUDSAdamW": Entry("AdamW after a preconditioner of rank one that is learned online", _HEAVYBALL, 3),
    "Scion": Entry(
        "momentum scaled to unit norm: spectral for matrices and kernels, RMS for vectors",
        "https://arxiv.org/abs/2502.07529",
        1,
    ),
    "SignLaProp": Entry("LaProp that takes the signs of its update", _LAPROP, 2),
    "UnscaledAdamW": Entry(
        "averages scaled gradients, then undoes the scaling: steps in proportion to gradients", _HEAVYBALL, 2
    ),
}

# Variants of the optimizers that can use second derivatives.
HESSIAN_VARIANTS = {
    "Hessian": ("LATHER", "PSGDKron", "PSGDLRA"),
    "FiniteDifferences": ("LATHER", "PSGDKron", "PSGDLRA"),
}

# The wrapper around any of the optimizers.
WRAPPER = "SAMWrapper"

UNFIT = {
    "SplitOpt": (
        "it takes classes and parameters of several optimizers, which a suite cannot write; for Muon and "
        "AdamW, take MuonAdamW"
    ),
}
