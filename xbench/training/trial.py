"""Check an optimizer against its contract before a run by taking two steps on a few weights."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from xbench.components.specs import OptimizerSpec
from xbench.components.tracebacks import describe_error, place_in_own_code
from xbench.training.footprint import optimizer_tensors
from xbench.training.loop import has_modes

STEPS = 2
MAX_CLOSURES = 200

_CONTRACT = (
    "xbench calls optimizer.step(closure); closure() clears .grad, computes loss and gradients, and returns "
    "the loss without a graph; there are no gradients before the first call"
)
_READ_STALE = "it read .grad before its first closure call"


def try_optimizer(spec: OptimizerSpec, params: Mapping[str, Any], device: str = "cpu") -> str | None:
    """Build an optimizer and take two steps with it, as training would.

    Its steps are taken first without prior gradients and then, with a new optimizer, with prior gradients of
    NaN. NaN in its weights or its state shows that it uses gradients from before its first closure call.

    An optimizer for "any" parameters gets a matrix and a vector. If it fails, it gets only a matrix, since it
    may be meant for a model that has nothing else.

    Args:
        spec: the optimizer's spec.
        params: hyperparameters to set; others keep their defaults.
        device: torch's name of the device for the weights.

    Returns:
        What is wrong with the optimizer or its hyperparameters, in one sentence; None if it works. An
        optimizer that calls the closure more than 200 times, as an endless line search does, counts as
        working.

    Raises:
        MemoryError: memory ran out.
    """
    failures: list[str] = []
    with _fill_uninitialised():
        for build_model in _choose_models(spec):
            clean = _take_steps(spec, params, build_model().to(device), stale=None)
            if isinstance(clean.error, _Breach):
                return str(clean.error)
            stale = _take_steps(spec, params, build_model().to(device), stale=torch.nan)
            if clean.error is None:
                is_spoilt = stale.error is not None or stale.nans > clean.nans
                return _add_contract(_READ_STALE) if is_spoilt else None
            failures.append(_explain(clean.error, clean, stale))
    return failures[0]


class _Breach(Exception):
    """Raised when an optimizer violates its contract; the message says how."""


class _Endless(BaseException):
    """Raised when a step does not end. It passes through an optimizer's `except Exception`."""


@dataclass
class _Outcome:
    """Result of the steps.

    Attributes:
        error: the exception that the optimizer raised, or its breach of the contract.
        is_built: whether the optimizer's factory returned.
        calls, returned: numbers of closure calls that began and that returned.
        nans: number of NaN elements in weights and state.
    """

    error: Exception | SystemExit | None = None
    is_built: bool = False
    calls: int = 0
    returned: int = 0
    nans: int = 0


def _take_steps(
    spec: OptimizerSpec, params: Mapping[str, Any], model: nn.Module, stale: float | None
) -> _Outcome:
    """Build the optimizer for a model and step it.

    Args:
        stale: value that fills all gradients before each step; None for no gradients.
    """
    outcome = _Outcome()
    try:
        optimizer = spec.load_factory()(list(model.parameters()), **params)
        outcome.is_built = True
        _check_interface(spec, optimizer)
        with suppress(_Endless):
            _train(optimizer, model, stale, outcome)
        outcome.nans = _count_nans([*model.parameters(), *optimizer_tensors(optimizer, model)])
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:  # plugins may raise anything
        outcome.error = error
    return outcome


def _train(optimizer: Any, model: nn.Module, stale: float | None, outcome: _Outcome) -> None:
    closure = _make_closure(model, outcome)
    if has_modes(optimizer):
        optimizer.train()
    for number in range(STEPS):
        for parameter in model.parameters():
            parameter.grad = None if stale is None else _fill_gradient(model, parameter, stale)
        before = outcome.calls
        optimizer.step(closure)
        if outcome.calls == before:
            which = "" if number == 0 else f" in step {number + 1}"
            raise _Breach(_add_contract(f"it never called the closure{which}"))
    if has_modes(optimizer):
        optimizer.eval()


def _make_closure(model: nn.Module, outcome: _Outcome) -> Callable[[], torch.Tensor]:
    """Make a closure that behaves like the one in training, and counts its calls."""

    def closure() -> torch.Tensor:
        outcome.calls += 1
        if outcome.calls > MAX_CLOSURES:
            raise _Endless
        model.zero_grad()
        with torch.enable_grad():
            loss = model(_make_inputs(model)).square().sum()
            loss.backward()
        outcome.returned += 1
        return loss.detach().double()

    closure.__qualname__ = "closure"  # the name in Python's messages about its arguments
    return closure


def _choose_models(spec: OptimizerSpec) -> list[Callable[[], nn.Module]]:
    if spec.gradients == "sparse":
        return [_build_embedding]
    if spec.parameters == "matrices":
        return [_build_matrix]
    return [_build_matrix_and_vector, _build_matrix]


def _build_matrix_and_vector() -> nn.Module:
    return _fix_weights(nn.Linear(3, 2, dtype=torch.float32))


def _build_matrix() -> nn.Module:
    return _fix_weights(nn.Linear(3, 2, bias=False, dtype=torch.float32))


def _build_embedding() -> nn.Module:
    return _fix_weights(nn.Embedding(3, 2, sparse=True, dtype=torch.float32))


def _fix_weights(model: nn.Module) -> nn.Module:
    """Set fixed weights, with which weights and gradients are matrices of full rank."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.linspace(0.1, 0.6, parameter.numel()).reshape(parameter.shape))
    return model


def _make_inputs(model: nn.Module) -> torch.Tensor:
    device = next(model.parameters()).device
    if isinstance(model, nn.Embedding):
        return torch.tensor([0, 2], device=device)
    return torch.eye(3, dtype=torch.float32, device=device)


def _fill_gradient(model: nn.Module, parameter: torch.Tensor, value: float) -> torch.Tensor:
    gradient = torch.full_like(parameter, value, requires_grad=False)
    return gradient.to_sparse(1) if isinstance(model, nn.Embedding) else gradient


def _check_interface(spec: OptimizerSpec, optimizer: Any) -> None:
    """Check the methods that training calls. The optimizer need not be a `torch.optim.Optimizer`.

    Raises:
        _Breach: a method is missing or does not work.
    """
    step = getattr(optimizer, "step", None)
    if not callable(step):
        kind = type(optimizer).__name__
        raise _Breach(_add_contract(f"its factory returned a {kind}, which has no step()"))
    with suppress(ValueError):  # the signature is unknown
        signature = inspect.signature(step)
        try:
            signature.bind(None)
        except TypeError:
            takes_none = not signature.parameters
            fault = "its step() takes no closure" if takes_none else f"its step is step{signature}"
            raise _Breach(_add_contract(fault)) from None
    missing = [name for name in ("state_dict", "load_state_dict") if not hasattr(optimizer, name)]
    if spec.resumable and missing:
        raise _Breach(f"its spec says that it is resumable, but it has no {missing[0]}()")
    try:
        spec.state_vectors(getattr(optimizer, "defaults", {}))
    except Exception as error:
        raise _Breach(f"its spec's state_vectors raised {describe_error(error)}") from error


def _explain(error: Exception | SystemExit, clean: _Outcome, stale: _Outcome) -> str:
    """Explain why an optimizer failed.

    Args:
        error: the error of `clean`.
        clean, stale: the results of the steps without prior gradients, and with some.
    """
    if not clean.is_built:
        is_objection = isinstance(error, ValueError) and str(error)  # to a hyperparameter
        if is_objection or not place_in_own_code(error):
            return str(error) or type(error).__name__
        return describe_error(error)
    if clean.calls > clean.returned:
        return _add_contract(f"closure() failed when the optimizer called it: {describe_error(error)}")
    if "does not require grad and does not have a grad_fn" in str(error):
        calls_backward = any(frame.name == "backward" for frame in traceback.extract_tb(error.__traceback__))
        what = "called backward() on the loss" if calls_backward else "differentiated a loss or a gradient"
        return _add_contract(f"it {what}")
    if stale.error is None or stale.calls > clean.calls:
        return _add_contract(_READ_STALE)
    if isinstance(stale.error, _Breach):
        return str(stale.error)
    return _add_contract(f"it raised {describe_error(error)}")


def _add_contract(what: str) -> str:
    return f"{what} ({_CONTRACT})"


def _count_nans(tensors: list[torch.Tensor]) -> int:
    floating = [t for t in tensors if t.is_floating_point() or t.is_complex()]
    return sum(int(torch.isnan(t if t.is_complex() else t.float()).sum()) for t in floating)


@contextmanager
def _fill_uninitialised() -> Iterator[None]:
    """Let `torch.empty` and similar functions fill tensors with NaN, so that runs are comparable."""
    mode = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("warn")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
