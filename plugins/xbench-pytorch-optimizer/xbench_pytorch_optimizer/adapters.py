"""Optimizers of pytorch_optimizer that need more than `step(closure)` gives them, with that method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_optimizer
import torch
from torch import Tensor, distributed, nn
from xbench import Unsupported

Closure = Callable[[], Tensor] | None  # None where another optimizer of the same step calls it


class BSAM(pytorch_optimizer.BSAM):
    """bSAM, which needs gradients before its first closure call, although it does not read their values."""

    def step(self, closure: Callable[[], Tensor]) -> Tensor:
        for parameter in _list_parameters(self):
            parameter.grad = torch.zeros_like(parameter)
        return super().step(closure)


class SCIONLight(pytorch_optimizer.SCIONLight):
    """SCION whose momentum stays in the gradients between steps.

    A closure replaces the gradients, so they are kept here, and added to the next ones.
    """

    def step(self, closure: Closure = None) -> Tensor | None:
        parameters = _list_parameters(self)
        loss = None if closure is None else closure()
        for parameter in parameters:
            if parameter.grad is not None and parameter in self.state:
                parameter.grad.add_(self.state[parameter]["momentum"])
        super().step()  # which multiplies the gradients by 1 - momentum in the end
        for parameter in parameters:
            if parameter.grad is not None:
                self.state[parameter]["momentum"] = parameter.grad
        return loss


class LoRARite(pytorch_optimizer.LoRARite):
    """LoRA-RITE, which pairs the parameters in order, and here refuses pairs that cannot be factors.

    Raises:
        xbench.Unsupported: two parameters that would be taken for a pair are not one, or one is left over.
    """

    def __init__(self, params: Iterable[Any], **settings: Any):
        super().__init__(params, **settings)
        needed = "LoRA-RITE needs pairs of low-rank factors, in order, such as (8, 64) and (32, 8)"
        for group in self.param_groups:
            for left, right in self.iter_lora_pairs(group):
                shapes = f"{tuple(left.shape)} and {tuple(right.shape)}"
                if left.ndim != 2 or right.ndim != 2:
                    raise Unsupported(f"{needed}; {shapes} are not two matrices")
                if left.shape[group["lora_l_dim"]] != right.shape[group["lora_r_dim"]]:
                    raise Unsupported(f"{needed}; {shapes} have different ranks")
            # xbench tries each optimizer on a single matrix, which LoRA-RITE leaves as it is.
            if len(group["params"]) > 1 and len(group["params"]) % 2:
                raise Unsupported(f"{needed}; {len(group['params'])} parameters are not pairs")


class LOMO(pytorch_optimizer.LOMO):
    """LOMO, whose hooks update the parameters during the backward pass of a step only."""

    _is_stepping = False

    def fuse_update(self) -> Callable[..., Any]:
        update = super().fuse_update()
        return lambda x, params=None: update(x, params) if self._is_stepping else x

    def step(self, closure: Any) -> Tensor:
        with _stepping(self):
            return _fuse(self, closure.loss())


class AdaLOMO(pytorch_optimizer.AdaLOMO):
    """AdaLOMO, whose hooks update the parameters during the backward pass of a step only.

    It keeps an average for each row and each column of a matrix. A kernel counts as a matrix with one row
    for each output channel.
    """

    _is_stepping = False

    def __init__(self, model: nn.Module, **settings: Any):
        flat = _FlatModel(model)
        super().__init__(flat, **settings)
        for parameter, _ in flat.pairs.values():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(lambda _: self.grad_func(None))

    def fuse_update(self) -> Callable[..., Any]:
        update = super().fuse_update()

        def update_views(x: Any) -> Any:
            if self._is_stepping:
                for parameter, view in self.model.pairs.values():
                    if parameter.grad is not None and parameter is not view:
                        view.grad, parameter.grad = parameter.grad.reshape(view.shape), None
                update(x)
            return x

        return update_views

    def step(self, closure: Any) -> Tensor:
        with _stepping(self):
            return _fuse(self, closure.loss())


class DeMo(pytorch_optimizer.DeMo):
    """DeMo on one machine. A kernel counts as a matrix with one row for each output channel."""

    def __init__(self, params: Iterable[Any], **settings: Any):
        _join_group_of_one()
        self._pairs: list[tuple[Tensor, Tensor]] = []
        groups = []
        for group in list_groups(params):
            pairs = [(p, _flatten(p)) for p in group["params"]]
            groups.append({**group, "params": [view for _, view in pairs]})
            self._pairs += pairs
        super().__init__(groups, **settings)

    def step(self, closure: Closure = None) -> Tensor | None:
        loss = None if closure is None else closure()
        for parameter, view in self._pairs:
            if parameter is not view and parameter.grad is not None:
                view.grad = parameter.grad.reshape(view.shape)
        super().step()
        for parameter, view in self._pairs:
            if parameter is not view:
                view.grad = None
        return loss


class DistributedMuon(pytorch_optimizer.DistributedMuon):
    """Distributed Muon on one machine."""

    def __init__(self, params: Iterable[Any], **settings: Any):
        _join_group_of_one()
        super().__init__(params, **settings)


class _FlatModel:
    """A stand-in for a model, whose parameters are views with one or two dimensions.

    Attributes:
        pairs: each parameter of the model and its view, by name.
    """

    def __init__(self, model: nn.Module):
        self.pairs = {name: (p, _flatten(p)) for name, p in model.named_parameters()}

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, view) for name, (_, view) in self.pairs.items())

    def parameters(self) -> Iterator[Tensor]:
        return (view for _, view in self.pairs.values())


def list_groups(params: Iterable[Any]) -> list[dict[str, Any]]:
    """Return parameters or parameter groups as a list of groups."""
    given = list(params)
    return [dict(group) for group in given] if isinstance(given[0], dict) else [{"params": given}]


def _list_parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _flatten(parameter: Tensor) -> Tensor:
    """Return a view with one or two dimensions; the parameter itself if it has as many."""
    if parameter.ndim in (1, 2):
        return parameter
    shape = (parameter.size(0), -1) if parameter.ndim else (1,)
    return parameter.detach().view(shape).requires_grad_(parameter.requires_grad)


def _fuse(optimizer: Any, loss: Tensor) -> Tensor:
    """Run the backward pass, which updates the parameters. The norm, if clipped, needs one before it."""
    if optimizer.clip_grad_norm:
        optimizer.grad_norm(loss)
    optimizer.fused_backward(loss, optimizer.param_groups[0]["lr"])
    return loss.detach()


@contextmanager
def _stepping(optimizer: Any) -> Iterator[None]:
    optimizer._is_stepping = True
    try:
        yield
    finally:
        optimizer._is_stepping = False


def _join_group_of_one() -> None:
    """Make this process the only member of torch's default process group, unless there is one."""
    if not distributed.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, store=distributed.HashStore(), rank=0, world_size=1)
