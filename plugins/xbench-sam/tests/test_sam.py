"""Tests of the optimizer without xbench: its arithmetic, closure calls, state and errors."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from xbench_sam.sam import SAM


class Closure:
    """A closure for the loss `compute_loss()` that records the parameters at each evaluation."""

    def __init__(self, parameters, compute_loss, fail_at=None):
        self.parameters, self.compute_loss, self.fail_at = list(parameters), compute_loss, fail_at
        self.seen = []

    def __call__(self):
        self.seen.append([p.detach().clone() for p in self.parameters])
        if len(self.seen) == self.fail_at:
            raise RuntimeError("out of luck")
        for p in self.parameters:
            p.grad = None
        loss = self.compute_loss()
        loss.backward()
        return loss.detach()


def make_regression():
    """Make a small network, and a closure for its mean squared error on 64 fixed points."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    inputs = torch.randn(64, 3)
    targets = inputs[:, :1].sin() + inputs[:, 1:2] * inputs[:, 2:]
    return model, Closure(model.parameters(), lambda: ((model(inputs) - targets) ** 2).mean())


def are_equal(tensors, others):
    return all(torch.equal(a, b) for a, b in zip(tensors, others, strict=True))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_steps_with_rho_zero_equal_sgd(momentum, weight_decay):
    model, closure = make_regression()
    twin, twin_closure = make_regression()
    settings = {"lr": 0.05, "momentum": momentum, "weight_decay": weight_decay}
    optimizer = SAM(model.parameters(), **settings, rho=0.0)
    sgd = torch.optim.SGD(twin.parameters(), **settings, foreach=False)
    for _ in range(5):
        assert torch.equal(optimizer.step(closure), sgd.step(twin_closure))
        assert are_equal(model.parameters(), twin.parameters())


def test_step_on_a_quadratic_by_hand():
    # f = (x^2 + 4 y^2) / 2 has a loss of 6.5 and the gradient (3, 4) at (3, 1). Its norm is 5, so the second
    # gradient is taken at (3.3, 1.4), where it is (3.3, 5.6). Weight decay adds 0.1 * (3, 1), which makes
    # (3.6, 5.7). The step is a tenth of that.
    x, y = (nn.Parameter(torch.tensor(value, dtype=torch.float64)) for value in (3.0, 1.0))
    closure = Closure([x, y], lambda: (x**2 + 4 * y**2) / 2)
    optimizer = SAM([x, y], lr=0.1, momentum=0.5, weight_decay=0.1, rho=0.5)
    assert optimizer.step(closure).item() == 6.5
    assert closure.seen[0] == [3.0, 1.0]
    assert [p.item() for p in closure.seen[1]] == pytest.approx([3.3, 1.4])
    assert [x.item(), y.item()] == pytest.approx([2.64, 0.43])
    assert [optimizer.state[p]["momentum_buffer"].item() for p in (x, y)] == pytest.approx([3.6, 5.7])


def test_groups_have_their_own_settings_and_one_norm():
    x, y = (nn.Parameter(torch.tensor(value, dtype=torch.float64)) for value in (3.0, 1.0))
    closure = Closure([x, y], lambda: (x**2 + 4 * y**2) / 2)
    groups = [{"params": [x], "rho": 0.0}, {"params": [y], "lr": 0.01}]
    SAM(groups, lr=0.1, momentum=0.0, rho=0.5).step(closure)
    assert [p.item() for p in closure.seen[1]] == pytest.approx([3.0, 1.4])
    assert [x.item(), y.item()] == pytest.approx([2.7, 1 - 0.01 * 5.6])


def test_closure_is_called_twice_a_step_and_the_first_loss_returned():
    model, closure = make_regression()
    optimizer = SAM(model.parameters(), rho=0.5)
    for step in range(1, 4):
        expected = closure.compute_loss().item()
        assert optimizer.step(closure).item() == expected
        assert len(closure.seen) == 2 * step
        first, second = (torch.cat([p.flatten() for p in seen]) for seen in closure.seen[-2:])
        assert (second - first).norm().item() == pytest.approx(0.5, rel=1e-4)


def test_closure_runs_with_gradients_enabled_under_no_grad():
    p = nn.Parameter(torch.ones(2))

    def closure():
        assert torch.is_grad_enabled()
        p.grad = None
        loss = (p**2).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        SAM([p]).step(closure)
    assert p.is_leaf and p.requires_grad


def test_parameters_are_restored_bit_by_bit():
    model, closure = make_regression()
    before = [p.detach().clone() for p in model.parameters()]
    SAM(model.parameters(), lr=0.0, rho=0.3).step(closure)
    assert are_equal(model.parameters(), before)
    assert not are_equal(closure.seen[1], before)


@pytest.mark.parametrize("fail_at", [1, 2])
def test_failing_closure_changes_nothing(fail_at):
    model, closure = make_regression()
    optimizer = SAM(model.parameters(), rho=0.3)
    optimizer.step(closure)
    before = [p.detach().clone() for p in model.parameters()]
    state = copy.deepcopy(optimizer.state_dict()["state"])
    failing = Closure(model.parameters(), closure.compute_loss, fail_at)
    with pytest.raises(RuntimeError, match="out of luck"):
        optimizer.step(failing)
    assert are_equal(model.parameters(), before)
    for index, entry in optimizer.state_dict()["state"].items():
        assert torch.equal(entry["momentum_buffer"], state[index]["momentum_buffer"])


def test_parameters_that_share_memory_are_restored():
    memory = torch.tensor([3.0, 1.0, 2.0])
    overlapping = [nn.Parameter(memory[:2]), nn.Parameter(memory[1:])]
    SAM(overlapping, lr=0.0, rho=0.3).step(
        Closure(overlapping, lambda: sum((p**2).sum() for p in overlapping))
    )
    assert memory.tolist() == [3.0, 1.0, 2.0]


def test_zero_gradient_moves_nothing():
    p = nn.Parameter(torch.tensor([1.0, -2.0]))
    closure = Closure([p], lambda: (0 * p).sum())
    SAM([p]).step(closure)
    assert len(closure.seen) == 2
    assert closure.seen[1][0].tolist() == p.tolist() == [1.0, -2.0]


def test_parameters_without_a_gradient_are_left_alone():
    used, unused = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(5.0))
    optimizer = SAM([used, unused], lr=0.1, weight_decay=0.1, rho=0.5)
    closure = Closure([used, unused], lambda: used**2)
    optimizer.step(closure)
    assert closure.seen[1] == [2.5, 5.0]
    assert unused.item() == 5.0 and unused not in optimizer.state
    assert used.item() != 2.0


def test_step_without_any_gradient_changes_nothing():
    p = nn.Parameter(torch.tensor(2.0))
    assert SAM([p]).step(lambda: torch.tensor(7.0)).item() == 7.0
    assert p.item() == 2.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_other_dtypes(dtype):
    # The norm of these gradients is about 95000, which float16 cannot represent.
    p = nn.Parameter(torch.zeros(100_000, dtype=dtype))

    def closure():
        closure.seen.append(p.detach().clone())
        p.grad = torch.full_like(p, 300)
        return torch.tensor(0.0)

    closure.seen = []
    optimizer = SAM([p], lr=1e-3, rho=1.0)
    optimizer.step(closure)
    moved = closure.seen[1].to(torch.complex128).abs().mean().item()
    assert moved == pytest.approx(100_000**-0.5, rel=4e-3)
    assert optimizer.state[p]["momentum_buffer"].dtype == p.dtype == dtype
    assert p[0].abs().item() == pytest.approx(0.3, rel=4e-3)


def test_sparse_gradients_are_refused():
    table = nn.Embedding(4, 2, sparse=True)
    closure = Closure(table.parameters(), lambda: table(torch.tensor([1, 3])).sum())
    with pytest.raises(RuntimeError, match="SAM does not support sparse gradients"):
        SAM(table.parameters()).step(closure)


@pytest.mark.parametrize("name", ["lr", "momentum", "weight_decay", "rho"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_values_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=rf"invalid {name}: {value} is not in \[0, "):
        SAM([nn.Parameter(torch.ones(1))], **{name: value})


def test_momentum_of_one_is_refused():
    with pytest.raises(ValueError, match=r"invalid momentum: 1\.0 is not in \[0, 1\)"):
        SAM([nn.Parameter(torch.ones(1))], momentum=1.0)


def test_invalid_group_is_refused_and_not_added():
    optimizer = SAM([nn.Parameter(torch.ones(1))])
    with pytest.raises(ValueError, match="invalid rho: -1"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "rho": -1})
    assert len(optimizer.param_groups) == 1


def test_state_dict_round_trip_continues_identically(tmp_path):
    model, closure = make_regression()
    optimizer = SAM(model.parameters(), lr=0.03, momentum=0.8, weight_decay=1e-3, rho=0.1)
    for _ in range(3):
        optimizer.step(closure)
    torch.save([model.state_dict(), optimizer.state_dict()], tmp_path / "checkpoint.pt")

    twin, twin_closure = make_regression()
    restored = SAM(twin.parameters())
    weights, state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    twin.load_state_dict(weights)
    restored.load_state_dict(state)
    for _ in range(3):
        assert torch.equal(optimizer.step(closure), restored.step(twin_closure))
        assert are_equal(model.parameters(), twin.parameters())


def test_no_momentum_needs_no_state():
    model, closure = make_regression()
    optimizer = SAM(model.parameters(), momentum=0.0)
    optimizer.step(closure)
    assert not optimizer.state


def test_steps_minimise_the_loss():
    model, closure = make_regression()
    optimizer = SAM(model.parameters(), lr=0.05, rho=0.05)
    first = optimizer.step(closure).item()
    for _ in range(300):
        last = optimizer.step(closure).item()
    assert last < 0.05 * first
