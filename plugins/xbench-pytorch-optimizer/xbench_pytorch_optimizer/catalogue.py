"""The optimizers of pytorch_optimizer 4.1: one line for each, with what their signatures do not say.

Everything else follows from a rule (see `factories`). Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from xbench import SearchRange

from xbench_pytorch_optimizer.fill import (
    create_state,
    fill_queue,
    jump_to_period,
    jump_to_resampling,
    switch_to_sgd,
)

Vectors = Callable[[Mapping[str, Any]], float | None]


@dataclass(frozen=True)
class Entry:
    """What xbench should know of one optimizer.

    Attributes:
        summary: a one-line description.
        reference: its paper, or its code if there is no paper.
        vectors: returns the size of its state, in vectors of the trained parameters, for a mapping of
            settings; None if the size depends on the shapes of the parameters or on data.
        fields: other fields of its `xbench.OptimizerSpec`.
        extras: settings that the package reads although its signature does not name them, with defaults.
        hidden: parameters of its signature that are not settings: those without a meaning in xbench, and
            dtypes of a state that the package loads from a checkpoint in another dtype.
    """

    summary: str
    reference: str
    vectors: Vectors
    fields: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()


def _count(vectors: float | None, *flags: str) -> Vectors:
    """Return a function that counts vectors: a fixed number, and one more for each flag that is set."""

    def count(settings: Mapping[str, Any]) -> float | None:
        return None if vectors is None else vectors + sum(bool(settings.get(flag)) for flag in flags)

    return count


def _describe(
    summary: str,
    reference: str,
    vectors: float | Vectors | None,
    *,
    extras: Mapping[str, Any] | None = None,
    hidden: tuple[str, ...] = (),
    **fields: Any,
) -> Entry:
    """Make an entry.

    Args:
        reference: a web address, or a number at arXiv.
        vectors: a number, or a function of the settings.
        fields: fields of the spec. It is resumable unless they say otherwise.
    """
    return Entry(
        summary=summary,
        reference=f"https://arxiv.org/abs/{reference}" if reference[0].isdigit() else reference,
        vectors=vectors if callable(vectors) else _count(vectors),
        fields={"resumable": True} | fields,
        extras=extras or {},
        hidden=hidden,
    )


def _every(setting: str, skipped: int = 0) -> dict[str, Any]:
    """Describe an optimizer that does more than usual whenever a number of steps has passed."""
    return {"fill_state": partial(jump_to_period, setting=setting, skipped=skipped)}


# Options of parameter groups, which the package reads from the keyword arguments of some classes.
_DEBIAS = {"adam_debias": False}
_NORM = {"adanorm": False, "adanorm_r": 0.95}
_CENTRAL = {"use_gc": False}
_CAUTIOUS = {"cautious": False}
_STABLE = {"stable_adamw": False}

# Settings of the groups of matrices that are projected. Those of GaLore are its paper's. The package's APOLLO
# multiplies by its scale twice, so the scales of that paper are far too large for it.
_GALORE = {"rank": 128, "update_proj_gap": 200, "scale": 0.25, "projection_type": "std"}
_FIRA = _GALORE | {"scale": 1.0}
_APOLLO = _FIRA | {"projection_type": "random"}

# Settings of AdamW, which Magma passes on.
_ADAMW = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}

_AMS = ("ams_bound",)
_MATRICES: dict[str, Any] = {
    "parameters": "matrices",
    "flattens_kernels": True,
    # Parameters that are not matrices belong to another optimizer, whose settings are its own.
    "hidden": ("adamw_lr", "adamw_betas", "adamw_wd", "adamw_eps"),
}
# Their states hold objects of the package, which checkpoints cannot.
_OBJECTS = {"resumable": False}

# Six optimizers are torch's own, which xbench describes itself.
TORCH = ("adam", "adamw", "lbfgs", "nadam", "rmsprop", "sgd")

_PNM, _ADAMP, _TAM, _DADAPT, _SCION = "2103.17182", "2006.08217", "2412.18790", "2301.07733", "2502.07529"
_EMO = "https://github.com/muooon/EmoNavi"
_MUON = "https://kellerjordan.github.io/posts/muon/"
_SCHEDULE_FREE = "2405.15682"

ENTRIES: dict[str, Entry] = {
    "a2grad": _describe("accelerated SGD with a step size from gradient differences", "1810.00553", 2),
    "accsgd": _describe("accelerated SGD that couples a short and a long step", "1704.08227", 1),
    "adabelief": _describe(
        "Adam with the variance of gradients around their mean",
        "2010.07468",
        _count(2, *_AMS),
        extras=_DEBIAS | _NORM,
    ),
    "adabound": _describe(
        "Adam whose step sizes are clipped to bounds that close in on SGD's",
        "https://openreview.net/forum?id=Bkg3g2R9FX",
        _count(2, *_AMS),
    ),
    "adadelta": _describe("steps from running averages of gradients and steps", "1212.5701", 2),
    "adafactor": _describe(
        "second moment factored into rows and columns; steps relative to the weights",
        "1804.04235",
        None,
        extras=_CAUTIOUS,
    ),
    "adagc": _describe("AdamW with gradients clipped at a running norm of each tensor", "2502.11034", 2),
    "adago": _describe("Muon with a step size as in AdaGrad", "2509.02981", 1, extras=_CAUTIOUS, **_MATRICES),
    "adahessian": _describe(
        "Adam with an estimate of the Hessian's diagonal as second moment",
        "2006.00719",
        3,
        extras=_DEBIAS,
        backward="create_graph",
        fill_state=create_state,
    ),
    "adai": _describe("SGD with a momentum of its own for each weight", "2006.15815", 3, extras=_CENTRAL),
    "adalite": _describe(
        "factored moments, and steps relative to the weights", "https://github.com/VatsaDev/adalite", None
    ),
    "adalomo": _describe(
        "factored second moment; updates during the backward pass", "2310.10195", None, backward="fused"
    ),
    "adamax": _describe("Adam with the infinity norm", "1412.6980", 2, extras=_DEBIAS | _NORM),
    "adamc": _describe(
        "AdamW whose weight decay of normalisation layers follows the schedule",
        "2506.02285",
        _count(2, *_AMS),
    ),
    "adamg": _describe("Adam with a step size from accumulated gradients", "2405.04376", 3),
    "adammini": _describe("Adam with one second moment for each block of weights", "2406.16793", None),
    "adamod": _describe(
        "Adam whose step sizes are bounded by their running average", "1910.12249", 3, extras=_DEBIAS
    ),
    "adamp": _describe(
        "Adam without the part of a step that only grows scale-invariant weights",
        _ADAMP,
        2,
        extras=_DEBIAS | _NORM | _CENTRAL | _CAUTIOUS,
    ),
    "adams": _describe(
        "Adam with a weight decay divided by the mean second moment",
        "2011.11152",
        _count(2, *_AMS),
        extras=_DEBIAS | _NORM,
    ),
    "adamuon": _describe(
        "Muon with a second moment of its orthogonalised momentum", "2507.11005", 2, **_MATRICES
    ),
    "adamwsn": _describe("AdamW with one second moment for each subset of a matrix", "2411.07120", None),
    "adan": _describe(
        "Nesterov momentum from gradient differences",
        "2208.06677",
        4,
        extras=_NORM | _CENTRAL,
    ),
    "adanorm": _describe(
        "Adam that lifts gradients shorter than their running norm",
        "2210.06364",
        _count(2, *_AMS),
        extras=_DEBIAS,
    ),
    "adapnm": _describe(
        "Adam with a difference of two momenta", _PNM, _count(3, *_AMS), extras=_DEBIAS | _NORM
    ),
    "adashift": _describe(
        "Adam whose second moment sees gradients of earlier steps only",
        "1810.00143",
        lambda settings: 2 + settings["keep_num"],
        extras=_CAUTIOUS,
        fill_state=fill_queue,
        **_OBJECTS,
    ),
    "adasmooth": _describe("AdaDelta with a decay from how straight the path is", "2204.00825", 4),
    "adatam": _describe("AdamW whose momentum damps gradients that disagree with it", _TAM, 3),
    "ademamix": _describe(
        "AdamW with a fast and a slow momentum", "2409.03137", 3, extras=_CAUTIOUS | _STABLE
    ),
    "adopt": _describe(
        "Adam that divides by the second moment of earlier steps", "2411.02853", 2, extras=_CAUTIOUS | _STABLE
    ),
    "aggmo": _describe(
        "SGD with several momenta", "1804.00325", lambda settings: len(set(settings["betas"]))
    ),
    "aida": _describe(
        "AdaBelief with projections that narrow the range of step sizes",
        "2203.13273",
        _count(2, *_AMS),
        extras=_DEBIAS | _NORM,
    ),
    "alice": _describe(
        "Adam in a subspace that is updated, with compensation for the rest",
        "2502.07752",
        None,
        **_every("update_interval"),
    ),
    "alig": _describe(
        "step size from the loss, for models that fit all data",
        "1906.05661",
        _count(0, "momentum"),
        needs_loss=True,
    ),
    "amos": _describe(
        "one second moment for each tensor, and weight decay towards a known scale",
        "2210.11693",
        _count(0, "momentum"),
    ),
    "ano": _describe("direction from the momentum, length from the gradient", "2508.18258", 2),
    "apollo": _describe(
        "gradients in a random low-rank subspace, scaled as AdamW scales them",
        "2412.05270",
        None,
        extras=_APOLLO,
        **_every("update_proj_gap"),
        **_OBJECTS,
    ),
    "apollodqn": _describe("quasi-Newton method with a diagonal matrix", "2009.13586", 3),
    "asgd": _describe("SGD with a step size from the local smoothness", "1910.09529", 0),
    "avagrad": _describe(
        "Adam divided by the second moment of earlier steps", "1912.01823", 2, extras=_DEBIAS
    ),
    "bcos": _describe(
        "step sizes that come closest to the optimum in expectation, per weight",
        "2507.08963",
        lambda settings: 2 if settings.get("mode") == "m" else 1,
    ),
    "bsam": _describe(
        "Bayesian SAM: gradients at perturbed samples of the weights; two closure calls per step",
        "2210.01620",
        3,
    ),
    "came": _describe("Adafactor with confidence in each step", "2307.02047", None),
    "conda": _describe(
        "Adam whose second moment is taken along directions of the momentum",
        "2509.24218",
        None,
        **_every("update_proj_gap"),
        **_OBJECTS,
    ),
    "dadaptadagrad": _describe("AdaGrad that estimates its step size", _DADAPT, 3),
    "dadaptadam": _describe("Adam that estimates its step size", _DADAPT, 3),
    "dadaptadan": _describe("Adan that estimates its step size", _DADAPT, 5),
    "dadaptlion": _describe("Lion that estimates its step size", _DADAPT, 2),
    "dadaptsgd": _describe("SGD that estimates its step size", _DADAPT, 3),
    "dash": _describe("Shampoo in batches of blocks", "2602.02016", None, **_every("precondition_frequency")),
    "demo": _describe(
        "signs of the strongest frequencies of the momentum; made for many machines",
        "2411.19870",
        None,
        hidden=("process_group",),
    ),
    "diffgrad": _describe(
        "Adam damped where gradients change little",
        "1909.11015",
        _count(3, *_AMS),
        extras=_DEBIAS | _NORM,
    ),
    "distributedmuon": _describe(
        "Muon that shares its work among machines; here, one machine", _MUON, 1, **_MATRICES
    ),
    "dualadam": _describe("Adam with a share of inverse Adam that fades", "2603.07122", 2),
    "emofact": _describe("Adafactor with steps scaled by how the loss changes", _EMO, None, needs_loss=True),
    "emolynx": _describe(
        "Lion with steps scaled by how the loss changes", _EMO, _count(1, "use_shadow"), needs_loss=True
    ),
    "emonavi": _describe(
        "Adam with steps scaled by how the loss changes", _EMO, _count(2, "use_shadow"), needs_loss=True
    ),
    "exadam": _describe("Adam with bias corrections that mix its moments", "2412.20302", 2),
    "fadam": _describe(
        "Adam as a natural gradient with a diagonal Fisher matrix",
        "2405.12807",
        lambda settings: 2 * 4 / settings["element_bytes"],  # in float32
        hidden=("momentum_dtype", "fim_dtype"),
    ),
    "fira": _describe(
        "Adam in a low-rank subspace, with the rest of the gradient scaled alike",
        "2410.01623",
        None,
        extras=_FIRA,
        **_every("update_proj_gap"),
        **_OBJECTS,
    ),
    "flashadamw": _describe("AdamW with moments of 8 bits", "2602.23349", None),
    "focus": _describe("signs of the momentum, drawn towards the average of the weights", "2501.12243", 2),
    "fromage": _describe("steps relative to the norm of each tensor", "2002.03432", 0),
    "ftrl": _describe(
        "follow the regularised leader: sparse weights for convex losses",
        "https://static.googleusercontent.com/media/research.google.com/en//pubs/archive/41159.pdf",
        2,
    ),
    "galore": _describe(
        "AdamW in a low-rank subspace of the gradients",
        "2403.03507",
        None,
        extras=_GALORE,
        **_every("update_proj_gap"),
        **_OBJECTS,
    ),
    "grams": _describe("direction from the gradient, length from Adam", "2412.17107", 2),
    "gravity": _describe("steps from a model of balls that roll downhill", "2101.09192", 1),
    "grokfastadamw": _describe(
        "AdamW with slow gradient components amplified",
        "2405.20233",
        lambda settings: 2 + bool(settings.get("grokfast", True) and settings.get("grokfast_lamb", 2.0) > 0),
    ),
    "kate": _describe("AdaGrad without the square root, invariant to scale", "2403.02648", 2),
    "kron": _describe(
        "PSGD: gradients whitened by learned Kronecker factors",
        "1512.04202",
        None,
        hidden=("mu_dtype", "precondition_dtype"),
    ),
    "lamb": _describe(
        "AdamW with steps relative to the norm of each tensor", "1904.00962", 2, extras=_DEBIAS | _NORM
    ),
    "laprop": _describe(
        "momentum of gradients that are normalised first",
        "2002.04839",
        _count(2, "centered", *_AMS),
        extras=_CAUTIOUS,
    ),
    "lars": _describe(
        "SGD with steps relative to the norm of each tensor", "1708.03888", _count(0, "momentum")
    ),
    "lion": _describe(
        "signs of the momentum",
        "2302.06675",
        1,
        extras=_NORM | _CENTRAL | _CAUTIOUS,
        search_space={"lr": SearchRange(low=1e-6, high=1e-2, scale="log")},  # the paper's, around 1e-4
        memory_free=("lr", "betas", "weight_decay"),
    ),
    "lomo": _describe("SGD that updates during the backward pass", "2306.09782", 0, backward="fused"),
    "lorarite": _describe("preconditioned steps for pairs of low-rank factors", "2410.20625", None),
    "madgrad": _describe("dual averaging with momentum", "2101.11075", _count(2, "momentum")),
    "magma": _describe(
        "AdamW with steps of tensors masked at random",
        "2602.15322",
        2,
        extras=_ADAMW,
        hidden=("moment_key", "exclude", "momentum_beta"),
    ),
    "mars": _describe("AdamW with variance reduction from the last gradient", "2411.10438", _count(3, *_AMS)),
    "msvag": _describe("momentum damped where gradients vary", "1705.07774", 2),
    "muon": _describe("orthogonalised momentum", _MUON, 1, extras=_CAUTIOUS, **_MATRICES),
    "muonclip": _describe(
        "Muon with Moonlight's step size; nothing is clipped, as xbench has no attention logits",
        "2507.20534",
        1,
        **_MATRICES | {"hidden": (*_MATRICES["hidden"], "qk_clip_threshold", "qk_clip_alpha")},
    ),
    "nero": _describe("steps relative to each neuron, with balanced weights", "2102.07227", None),
    "normuon": _describe("Muon with a second moment for each neuron", "2510.05491", None, **_MATRICES),
    "novograd": _describe("Adam with one second moment for each tensor", "1905.11286", 1, extras=_DEBIAS),
    "padam": _describe("Adam with a smaller power of the second moment", "1806.06763", 2),
    "pid": _describe(
        "SGD as a PID controller",
        "https://ieeexplore.ieee.org/document/8578837",
        lambda settings: 3.0 * bool(settings.get("momentum")),
    ),
    "pnm": _describe("SGD with a difference of two momenta", _PNM, 2),
    "prodigy": _describe("Adam that estimates its step size", "2306.06101", 4),
    "qhadam": _describe("Adam that mixes momentum and gradient", "1810.06801", 2),
    "qhm": _describe("SGD that mixes momentum and gradient", "1810.06801", 1),
    "racs": _describe("SGD scaled by row and column", "2502.07752", None),
    "radam": _describe("Adam with a rectified adaptive rate", "1908.03265", 2, extras=_DEBIAS | _NORM),
    "ranger": _describe(
        "RAdam with Lookahead and centred gradients",
        "https://github.com/lessw2020/Ranger-Deep-Learning-Optimizer",
        3,
        extras=_DEBIAS | _NORM,
    ),
    "ranger21": _describe(
        "AdamW with Lookahead, clipping, centring, and a schedule of its own",
        "2106.13731",
        5,
        extras=_DEBIAS,
    ),
    "rose": _describe("gradients divided by their range; no state", "https://github.com/MatthewK78/Rose", 0),
    "sara": _describe("AdamW for the weights that start near zero", "2409.06633", None),
    "scalableshampoo": _describe(
        "Shampoo in blocks, with the step length of another method",
        "2002.09018",
        None,
        **_every("preconditioning_compute_steps"),
        **_OBJECTS,
    ),
    "schedulefreeadamw": _describe(
        "AdamW with averaging in place of a schedule",
        _SCHEDULE_FREE,
        _count(2, *_AMS),
    ),
    "schedulefreeradam": _describe("RAdam with averaging in place of a schedule", _SCHEDULE_FREE, 2),
    "schedulefreesgd": _describe("SGD with averaging in place of a schedule", _SCHEDULE_FREE, 1),
    "scion": _describe("steps of a fixed norm, chosen by the shape of a tensor", _SCION, 1),
    "scionlight": _describe("SCION that keeps its momentum in the gradients", _SCION, 1),
    "sgdp": _describe("SGD without the part of a step that only grows scale-invariant weights", _ADAMP, 1),
    "sgdsai": _describe("SGD with step sizes from the first gradient", "2412.11768", _count(0, "momentum")),
    "sgdw": _describe("SGD with decoupled weight decay", "1711.05101", _count(0, "momentum")),
    "shampoo": _describe(
        "gradients multiplied by inverse roots of Kronecker factors",
        "1802.09568",
        None,
        **_every("preconditioning_compute_steps"),
    ),
    "signsgd": _describe("signs of the gradient or momentum", "1802.04434", _count(0, "momentum")),
    "simplifiedademamix": _describe("Adam that mixes momentum and gradient", "2502.02431", 2),
    "sm3": _describe("AdaGrad with a maximum for each row and column", "1901.11150", None, gradients="any"),
    "soap": _describe(
        "Adam in the eigenbasis of Shampoo",
        "2409.11321",
        None,
        **_every("precondition_frequency", skipped=1),
    ),
    "sophiah": _describe(
        "clipped Newton steps with an estimate of the Hessian's diagonal",
        "2305.14342",
        3,
        backward="create_graph",
        fill_state=create_state,
    ),
    "spam": _describe(
        "Adam that clips spikes and resets its momentum",
        "2501.06842",
        None,
        fill_state=jump_to_resampling,
    ),
    "spectralsphere": _describe(
        "orthogonalised steps along a sphere of the spectral norm",
        "2601.08393",
        1,
        parameters="matrices",
    ),
    "splus": _describe(
        "signs in the eigenbasis of Shampoo, and averaged weights",
        "2506.07254",
        None,
        **_every("inverse_steps"),
    ),
    "srmm": _describe("steps on averages of gradients and weights", "2201.01652", 2),
    "stableadamw": _describe(
        "AdamW with updates clipped as in Adafactor",
        "2304.13013",
        # In 16 bits, the sum of the updates is compensated.
        lambda settings: 2 + (settings["kahan_sum"] and settings["element_bytes"] == 2),
    ),
    "stablespam": _describe(
        "Adam with normalised gradients and momentum resets",
        "2502.17055",
        2,
    ),
    "swats": _describe(
        "Adam that switches to SGD with a learning rate of its own, so without a schedule",
        "1712.07628",
        _count(3, *_AMS),
        fill_state=switch_to_sgd,
    ),
    "tam": _describe("SGD whose momentum damps gradients that disagree with it", _TAM, 2),
    "tiger": _describe("signs of the momentum; one vector of state", "https://github.com/bojone/tiger", 1),
    "vsgd": _describe(
        "gradients estimated by a Bayesian model", "https://openreview.net/forum?id=xu4ATNjcdy", 3
    ),
    "yogi": _describe(
        "Adam whose second moment grows slowly",
        "https://papers.nips.cc/paper/8186-adaptive-methods-for-nonconvex-optimization",
        2,
        extras=_DEBIAS,
    ),
}

NAMES: tuple[str, ...] = tuple(sorted([*ENTRIES, *TORCH]))
