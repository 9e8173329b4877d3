"""Tests of L-BFGS with a full history, and of the declared state size of all optimizers."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from torch import nn

from tests.components import lbfgs_jobs as jobs
from xbench.components.lbfgs import fill_history
from xbench.components.registry import load, registrations
from xbench.isolation.child import Limits
from xbench.isolation.run import run_in_child
from xbench.training.footprint import optimizer_state_bytes, trained_bytes

MB = jobs.MB

NAMES = [
    name
    for name, registration in registrations("optimizer").items()
    if any(distribution.startswith("xbench ") for distribution in registration.distributions)
]


def a_model() -> nn.Module:
    """Make matrices, which Muon needs, large enough for the scalars of other optimizers not to matter."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 60, bias=False), nn.Tanh(), nn.Linear(60, 30, bias=False))


def closure_of(model: nn.Module, optimizer: torch.optim.Optimizer, sparse: bool = False):
    torch.manual_seed(1)
    inputs, targets = torch.randn(50, 40), torch.randn(50, 30)

    def closure():
        optimizer.zero_grad()
        loss = (model(inputs) - targets).square().mean()
        loss.backward()
        if sparse:
            for parameter in model.parameters():
                parameter.grad = parameter.grad.to_sparse()
        return loss.detach()

    return closure


class TestFilledHistory:
    @pytest.fixture(params=[1, 4, 20], ids=lambda size: f"history {size}")
    def history(self, request) -> int:
        return request.param

    @pytest.fixture(params=[None, "strong_wolfe"], ids=["plain", "strong_wolfe"])
    def filled(self, request, history):
        model = a_model()
        optimizer = torch.optim.LBFGS(
            model.parameters(), history_size=history, line_search_fn=request.param, max_iter=20
        )
        fill_history(optimizer)
        return model, optimizer

    def state(self, optimizer) -> dict:
        return optimizer.state[optimizer.param_groups[0]["params"][0]]

    def test_is_full_before_and_after_a_step(self, filled, history):
        model, optimizer = filled
        assert len(self.state(optimizer)["old_dirs"]) == history
        oldest = self.state(optimizer)["old_dirs"][0]
        optimizer.step(closure_of(model, optimizer))
        assert len(self.state(optimizer)["old_dirs"]) == history
        assert self.state(optimizer)["old_dirs"][0] is not oldest, "the step remembers a pair of its own"
        assert len(self.state(optimizer)["old_stps"]) == len(self.state(optimizer)["ro"]) == history

    def test_a_step_works(self, filled):
        model, optimizer = filled
        before = [parameter.detach().clone() for parameter in model.parameters()]
        loss = optimizer.step(closure_of(model, optimizer))
        assert math.isfinite(loss)
        for parameter, old in zip(model.parameters(), before, strict=True):
            assert torch.isfinite(parameter).all()
            assert not torch.equal(parameter, old)

    def test_a_step_takes_two_iterations(self, filled):
        model, optimizer = filled
        began = self.state(optimizer)["n_iter"]
        optimizer.step(closure_of(model, optimizer))
        assert self.state(optimizer)["n_iter"] - began == 2

    def test_state_has_the_declared_size(self, filled, history):
        model, optimizer = filled
        expected = (2 * history + 2) * trained_bytes(model)
        assert optimizer_state_bytes(optimizer, model) == pytest.approx(expected, rel=0.02)
        optimizer.step(closure_of(model, optimizer))
        assert optimizer_state_bytes(optimizer, model) == pytest.approx(expected, rel=0.02)

    def test_state_has_the_dtype_of_the_model(self, history):
        model = a_model().double()
        optimizer = torch.optim.LBFGS(model.parameters(), history_size=history)
        fill_history(optimizer)
        assert {vector.dtype for vector in self.state(optimizer)["old_dirs"]} == {torch.float64}
        assert optimizer_state_bytes(optimizer, model) == pytest.approx(
            (2 * history + 2) * trained_bytes(model), rel=0.02
        )

    def test_smaller_iteration_limits_are_kept(self):
        model = a_model()
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=1, max_eval=3)
        fill_history(optimizer)
        assert [optimizer.param_groups[0][key] for key in ("max_iter", "max_eval")] == [1, 3]


class TestPeak:
    """Peak memory of L-BFGS with vectors of 30 MB, which filling the history must not reduce."""

    HISTORY = 3

    @pytest.fixture(scope="class")
    @classmethod
    def measured(cls):
        def measure(filled):
            limits = Limits(malloc="exact", threads=1)
            return run_in_child(jobs.peak_of_a_full_step, 30, cls.HISTORY, filled, limits=limits).value

        return {filled: measure(filled) for filled in (True, False)}

    def test_is_full_in_both(self, measured):
        for _, pairs, state_bytes in measured.values():
            assert pairs == (self.HISTORY, self.HISTORY)
            assert state_bytes == pytest.approx((2 * self.HISTORY + 2) * 30 * MB, rel=0.02)

    def test_filled_history_takes_at_least_as_much(self, measured):
        assert measured[True][0] >= measured[False][0] - 2 * MB

    def test_filled_history_takes_at_most_one_vector_more(self, measured):
        """The memory of a line search depends on its course."""
        assert measured[True][0] <= measured[False][0] + 32 * MB


CASES = [(name, {}) for name in NAMES if name not in ("lbfgs", "adafactor")] + [
    ("sgd", {"momentum": 0.9}),
    ("adam", {"amsgrad": True}),
    ("adamw", {"amsgrad": True}),
    ("rmsprop", {"momentum": 0.9}),
    ("rmsprop", {"centered": True}),
    ("rmsprop", {"momentum": 0.9, "centered": True}),
    *(("lbfgs", {"history_size": size}) for size in (1, 5, 30)),
]


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize(("name", "params"), CASES, ids=lambda value: str(value))
def test_state_has_the_declared_size(name, params):
    spec = load("optimizer", name)
    model = a_model()
    optimizer = spec.load_factory()(list(model.parameters()), **params)
    fill_state = spec.load_fill_state()
    if fill_state is not None:
        fill_state(optimizer)
    closure = closure_of(model, optimizer, sparse=spec.gradients == "sparse")
    for _ in range(2):
        optimizer.step(closure)
    vectors = spec.state_vectors(optimizer.defaults)
    assert vectors is not None
    measured = optimizer_state_bytes(optimizer, model) / trained_bytes(model)
    assert measured == pytest.approx(vectors, rel=0.02, abs=0.02)


def test_adafactor_declares_no_state_vectors():
    """The size of its state depends on the shapes of the matrices."""
    assert load("optimizer", "adafactor").state_vectors({}) is None


def test_every_optimizer_of_torch_is_covered():
    classes = inspect.getmembers(torch.optim, inspect.isclass)
    names = {
        name for name, kind in classes if issubclass(kind, torch.optim.Optimizer) and name != "Optimizer"
    }
    assert {load("optimizer", name).factory.removeprefix("torch.optim:") for name in NAMES} == names
