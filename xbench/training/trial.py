"""Check an optimizer against its contract before a run by taking two steps on a few weights."""

from __future__ import annotations

import inspect
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from xbench.components.optimizer_factory import RunFacts
from xbench.components.roles import Role, find_roles
from xbench.components.specs import OptimizerSpec
from xbench.components.tracebacks import describe_error, place_in_own_code
from xbench.errors import XbenchError
from xbench.training.footprint import optimizer_tensors
from xbench.training.optimizer import MATRICES, REST, LoadedOptimizer, with_rest
from xbench.training.optimizer_methods import has_modes
from xbench.training.settings import Choice

STEPS = 2
# What factories are told of the run. It is much longer than the trial: some divide by parts of it.
TRIAL_RUN = RunFacts(total_steps=1000, steps_per_epoch=100, num_examples=1000)
MAX_CLOSURES = 200

_CONTRACT = (
    "xbench calls optimizer.step(closure); closure() clears .grad, computes loss and gradients, and returns "
    "the loss without a graph; there are no gradients before the first call"
)
_READ_STALE = "it read .grad before its first closure call"


def try_optimizer(
    spec: OptimizerSpec, params: Mapping[str, Any], device: str = "cpu", import_dirs: Sequence[str] = ()
) -> str | None:
    """Build an optimizer and take two steps with it, as training would.

    Its steps are taken first without prior gradients and then, with a new optimizer, with prior gradients of
    NaN. NaN in its weights or its state shows that it uses gradients from before its first closure call.

    An optimizer for "any" parameters gets a matrix and a vector. If it fails, it gets only a matrix, since it
    may be meant for a model that has nothing else. An optimizer for matrices gets a network of three layers,
    and is combined with the optimizer of the other parameters.

    Args:
        spec: the optimizer's spec.
        params: hyperparameters to set; others keep their defaults.
        device: torch's name of the device for the weights.
        import_dirs: folders that `rest` may be imported from.

    Returns:
        What is wrong with the optimizer or its hyperparameters, in one sentence; None if it works. An
        optimizer that calls the closure more than 200 times, as an endless line search does, counts as
        working.

    Raises:
        MemoryError: memory ran out.
    """
    failures: list[str] = []
    try:
        loaded = with_rest(Choice("it", dict(params)), spec, import_dirs)
    except XbenchError as error:
        return error.message
    with _fill_uninitialised():
        for build_model in choose_models(spec):
            clean = _take_steps(loaded, build_model().to(device), stale=None)
            if isinstance(clean.error, _Breach):
                return str(clean.error)
            stale = _take_steps(loaded, build_model().to(device), stale=torch.nan)
            if clean.error is None:
                is_spoilt = stale.error is not None or stale.nans > clean.nans
                return _add_contract(_READ_STALE) if is_spoilt else None
            failures.append(_explain(clean.error, clean, stale))
    return failures[0]


class _Breach(Exception):
    """Raised when an optimizer violates its contract; the message says how."""


class Endless(BaseException):
    """Raised when a step does not end. It passes through an optimizer's `except Exception`."""


@dataclass
class Outcome:
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


def _take_steps(loaded: LoadedOptimizer, model: nn.Module, stale: float | None) -> Outcome:
    """Build the optimizer for a model and step it.

    Args:
        stale: value that fills all gradients before each step; None for no gradients.
    """
    outcome = Outcome()
    try:
        optimizer = loaded.build(model, find_trial_roles(model), TRIAL_RUN, seed=0)
        outcome.is_built = True
        _check_parts(loaded, optimizer, model)
        with suppress(Endless):
            _train(loaded.spec, optimizer, model, stale, outcome)
        outcome.nans = _count_nans([*model.parameters(), *optimizer_tensors(optimizer, model)])
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:  # plugins may raise anything
        outcome.error = error
    return outcome


def _train(
    spec: OptimizerSpec, optimizer: Any, model: nn.Module, stale: float | None, outcome: Outcome
) -> None:
    closure = TrialClosure(spec, model, outcome)
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


class TrialClosure:
    """A closure that behaves like the one in training, and counts its calls."""

    def __init__(self, spec: OptimizerSpec, model: nn.Module, outcome: Outcome):
        self._backward, self._model, self._outcome = spec.backward, model, outcome

    def __call__(self) -> torch.Tensor:
        if self._backward == "fused":
            raise _Breach(_add_contract("its spec says backward='fused', but it called closure()"))
        with self._counted(), torch.enable_grad():
            loss = self._compute_loss()
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Using backward")
                loss.backward(create_graph=self._backward == "create_graph")
            return loss.detach().double()

    def loss(self) -> torch.Tensor:
        if self._backward != "fused":
            raise _Breach("it called closure.loss(), which is for a spec that says backward='fused'")
        with self._counted(), torch.enable_grad():
            return self._compute_loss()

    def _compute_loss(self) -> torch.Tensor:
        self._model.zero_grad()
        return self._model(_make_inputs(self._model)).square().sum()

    __call__.__qualname__ = "closure"  # the name in Python's messages about its arguments

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._outcome.calls += 1
        if self._outcome.calls > MAX_CLOSURES:
            raise Endless
        yield
        self._outcome.returned += 1


def choose_models(spec: OptimizerSpec) -> list[Callable[[], nn.Module]]:
    if spec.gradients == "sparse":
        return [_build_embedding]
    if spec.parameters == "matrices":
        return [_build_three_layers]
    return [_build_matrix_and_vector, _build_matrix]


def _build_matrix_and_vector() -> nn.Module:
    return _fix_weights(nn.Linear(3, 2, dtype=torch.float32))


def _build_matrix() -> nn.Module:
    return _fix_weights(nn.Linear(3, 2, bias=False, dtype=torch.float32))


def _build_three_layers() -> nn.Module:
    sizes = ((3, 4), (4, 2), (2, 2))  # two hidden matrices, so that there may be two groups of them
    return _fix_weights(nn.Sequential(*(nn.Linear(*size, dtype=torch.float32) for size in sizes)))


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


def find_trial_roles(model: nn.Module) -> dict[str, Role]:
    *_, last = model.modules()
    return find_roles(model, last=list(last.parameters()))


def _check_parts(loaded: LoadedOptimizer, optimizer: Any, model: nn.Module) -> None:
    """Check the methods that training calls, of both parts of a composite.

    Raises:
        _Breach: a method is missing or does not work.
    """
    if loaded.rest is None:
        _check_interface(loaded, optimizer, model)
        return
    for part, other in ((MATRICES, loaded), (REST, loaded.rest)):
        _check_interface(other, optimizer.parts[part], model)
        with suppress(ValueError):
            try:
                inspect.signature(optimizer.parts[part].step).bind()
            except TypeError:
                who = f"rest = '{other.name}'" if part == REST else "it"
                raise _Breach(
                    f"{who} needs the closure in its step, but "
                    "two optimizers that share a model step without one, on the gradients of one closure call"
                ) from None


def _check_interface(loaded: LoadedOptimizer, optimizer: Any, model: nn.Module) -> None:
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
    if loaded.spec.resumable and missing:
        raise _Breach(f"its spec says that it is resumable, but it has no {missing[0]}()")
    try:
        loaded.spec.state_vectors(loaded.facts_of_state(optimizer, list(model.parameters())))
    except Exception as error:
        raise _Breach(f"its spec's state_vectors raised {describe_error(error)}") from error


def _explain(error: Exception | SystemExit, clean: Outcome, stale: Outcome) -> str:
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
