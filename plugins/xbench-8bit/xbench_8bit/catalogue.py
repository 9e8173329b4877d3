"""What is known of each optimizer: its method, source and state, or why it cannot serve."""

from __future__ import annotations

EIGHT_BIT = "https://arxiv.org/abs/2110.02861"
FOUR_BIT = "https://arxiv.org/abs/2309.01507"
TORCHAO_PAGE = "https://github.com/pytorch/ao/tree/main/torchao/optim"

_FORMATS = {
    "4bit": ("moments of 4 bits, quantised in blocks", FOUR_BIT),
    "8bit": ("moments of 8 bits, quantised in blocks", EIGHT_BIT),
    "Fp8": ("moments in an 8-bit floating-point format, scaled in blocks", TORCHAO_PAGE),
}

# Class: (summary, reference).
TORCHAO = {
    f"{kind}{name}": (f"{kind} with {moments}", reference)
    for kind in ("Adam", "AdamW")
    for name, (moments, reference) in _FORMATS.items()
}

TORCHAO_UNFIT = {
    "CPUOffloadOptimizer": "it needs a CUDA or XPU device, and fails to start on a CPU",
    "_AdamW": "it is meant for quantised parameters; for others, it is AdamW",
}

# Class without the bits: (summary, reference, vectors of state with 32 bits). `_BITS` completes the summary.
_KINDS = {
    "AdEMAMix": (
        "Adam with a fast and a slow average of the gradient",
        "https://arxiv.org/abs/2409.03137",
        3,
    ),
    "Adagrad": (
        "steps scaled by accumulated squared gradients",
        "https://jmlr.org/papers/v12/duchi11a.html",
        1,
    ),
    "Adam": ("first and second moment estimates", "https://arxiv.org/abs/1412.6980", 2),
    "AdamW": ("Adam with decoupled weight decay", "https://arxiv.org/abs/1711.05101", 2),
    "LAMB": ("Adam with a rate for each layer", "https://arxiv.org/abs/1904.00962", 2),
    "LARS": ("SGD with a rate for each layer", "https://arxiv.org/abs/1708.03888", 1),
    "Lion": ("signs of an average of gradients", "https://arxiv.org/abs/2302.06675", 1),
    "RMSprop": ("gradients divided by their running root mean square", EIGHT_BIT, 1),
    "SGD": ("stochastic gradient descent with momentum", EIGHT_BIT, 1),
}
_BITS = {"": "; state of 32 bits, or of 8", "32bit": "; state of 32 bits", "8bit": "; state of 8 bits"}
_BROKEN = {"AdEMAMix32bit": "it fails in its first step, with bitsandbytes 0.50.2; take AdEMAMix"}
_PAGED = "its state is in memory that CUDA manages, which xbench cannot count; on a CPU, it is the same as {}"

BITSANDBYTES = {
    f"{kind}{bits}": (f"{summary}{addition}", reference, vectors)
    for kind, (summary, reference, vectors) in _KINDS.items()
    for bits, addition in _BITS.items()
    if f"{kind}{bits}" not in _BROKEN
} | {"PytorchLARS": ("SGD with a rate for each layer, in plain PyTorch", _KINDS["LARS"][1], 1)}

BITSANDBYTES_UNFIT = {
    **_BROKEN,
    **{
        f"Paged{kind}{bits}": _PAGED.format(f"{kind}{bits}")
        for kind in ("AdEMAMix", "Adam", "AdamW", "Lion")
        for bits in _BITS
        if f"{kind}{bits}" not in _BROKEN
    },
    "PagedAdEMAMix32bit": _BROKEN["AdEMAMix32bit"],
}
