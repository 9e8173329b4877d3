"""Every optimizer of `torch.optim`, registered as a third party would register its own.

What an optimizer cannot take is part of its spec; which gradients each takes is what its `step` in torch
does with a sparse one (`tests/components/test_optimizers.py` tries them all).
"""

from __future__ import annotations

from xbench.components.specs import OptimizerSpec

_DOCS = "https://docs.pytorch.org/docs/stable/generated/torch.optim.{}.html"


def _torch_optimizer(class_name: str, summary: str, **needs: str) -> OptimizerSpec:
    return OptimizerSpec(
        factory=f"torch.optim:{class_name}",
        summary=summary,
        reference=_DOCS.format(class_name),
        **needs,
    )


ADADELTA = _torch_optimizer("Adadelta", "adaptive steps from running averages; no learning rate to tune")
ADAFACTOR = _torch_optimizer("Adafactor", "Adam's second moment factored into row and column averages")
ADAGRAD = _torch_optimizer("Adagrad", "steps scaled by accumulated squared gradients", gradients="any")
ADAM = _torch_optimizer("Adam", "first and second moment estimates")
ADAMAX = _torch_optimizer("Adamax", "Adam with the infinity norm")
ADAMW = _torch_optimizer("AdamW", "Adam with decoupled weight decay")
ASGD = _torch_optimizer("ASGD", "averaged stochastic gradient descent")
LBFGS = _torch_optimizer("LBFGS", "limited-memory quasi-Newton; meant for the full batch", gradients="any")
MUON = _torch_optimizer("Muon", "orthogonalised momentum for weight matrices", parameters="matrices")
NADAM = _torch_optimizer("NAdam", "Adam with Nesterov momentum")
RADAM = _torch_optimizer("RAdam", "Adam with a rectified adaptive rate")
RMSPROP = _torch_optimizer("RMSprop", "gradients divided by their running root mean square")
RPROP = _torch_optimizer("Rprop", "steps from gradient signs alone; meant for the full batch")
SGD = _torch_optimizer("SGD", "stochastic gradient descent, with momentum if asked", gradients="any")
SPARSE_ADAM = _torch_optimizer("SparseAdam", "Adam for sparse gradients", gradients="sparse")
