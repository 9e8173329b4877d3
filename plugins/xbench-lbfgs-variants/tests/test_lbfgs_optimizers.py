"""Tests of the three optimizers without xbench: their steps, state and errors."""

from __future__ import annotations

import copy

import pytest
import torch
from lbfgs_problems import Closure, make_network, make_quadratic, make_waves
from torch import nn

import xbench_lbfgs_variants as plugin
from xbench_lbfgs_variants.base import PairOptimizer
from xbench_lbfgs_variants.damped import DampedLBFGS
from xbench_lbfgs_variants.online import OnlineLBFGS
from xbench_lbfgs_variants.pairs import PairHistory
from xbench_lbfgs_variants.wolfe import WolfeLBFGS

pytestmark = pytest.mark.plugin

CLASSES = [OnlineLBFGS, DampedLBFGS, WolfeLBFGS]
STOCHASTIC = [OnlineLBFGS, DampedLBFGS]


def history_of(optimizer: PairOptimizer) -> PairHistory:
    return PairHistory(optimizer.state[optimizer.param_groups[0]["params"][0]])


def count_bytes(optimizer: PairOptimizer) -> int:
    tensors = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
    return sum(t.untyped_storage().nbytes() for t in tensors)


def invert_densely(optimizer, scale):
    """Build the inverse Hessian that an optimizer's pairs stand for, as a dense matrix."""
    pairs = list(history_of(optimizer).list_newest_first())
    identity = torch.eye(pairs[0][0].numel(), dtype=torch.float64)
    matrix = scale * identity
    for s, y, _ in reversed(pairs):
        left = identity - torch.outer(s, y) / s.dot(y)
        matrix = left @ matrix @ left.T + torch.outer(s, s) / s.dot(y)
    return matrix


class TestQuadratic:
    @pytest.mark.parametrize("kind", CLASSES)
    def test_pairs_have_the_curvature_of_the_hessian(self, kind):
        x, hessian, closure = make_quadratic()
        optimizer = kind([x], history_size=4)
        for _ in range(3):
            optimizer.step(closure)
        pairs = list(history_of(optimizer).list_newest_first())
        assert pairs
        for s, y, curvature in pairs:
            torch.testing.assert_close(y, hessian @ s, rtol=1e-6, atol=1e-9)
            torch.testing.assert_close(curvature, s.dot(y))

    @pytest.mark.parametrize("history_size", [3, 20])
    def test_step_is_the_dense_inverse_times_the_gradient(self, history_size):
        x, hessian, closure = make_quadratic()
        optimizer = OnlineLBFGS([x], lr=0.5, history_size=history_size)
        for _ in range(6):
            optimizer.step(closure)
        history = history_of(optimizer)
        assert len(history) == min(6, history_size)
        dense = invert_densely(optimizer, history.mean_scale())
        before = x.detach().clone()
        optimizer.step(closure)
        torch.testing.assert_close(x.detach(), before - 0.5 * dense @ hessian @ before)

    @pytest.mark.parametrize("pairs_dtype", [None, "bfloat16"])
    @pytest.mark.parametrize(
        ("kind", "settings", "steps"),
        [(OnlineLBFGS, {"lr": 0.5}, 200), (DampedLBFGS, {"lr": 0.5}, 200), (WolfeLBFGS, {}, 5)],
    )
    def test_steps_converge(self, kind, settings, steps, pairs_dtype):
        x, _, closure = make_quadratic()
        optimizer = kind([x], **settings, pairs_dtype=pairs_dtype)
        first = closure()
        for _ in range(steps):
            optimizer.step(closure)
        assert closure() < 1e-6 * first

    def test_wolfe_needs_no_more_evaluations_than_torch_and_reaches_as_low(self):
        evaluations, losses = [], []
        for build in (
            lambda x: WolfeLBFGS([x], max_iter=10, max_eval=15),
            lambda x: torch.optim.LBFGS([x], max_iter=10, max_eval=15, line_search_fn="strong_wolfe"),
        ):
            x, _, closure = make_quadratic(20)
            optimizer = build(x)
            for _ in range(4):
                optimizer.step(closure)
            evaluations.append(len(closure.seen))
            losses.append(closure())
        assert evaluations[0] <= evaluations[1]
        assert losses[0] < max(10 * losses[1], 1e-12)


class TestOnline:
    def test_steps_by_hand(self):
        # f = 2 x^2 has the gradient 4 x. From 1, the first step is -(0.5 / 1) * 0.125 * 4 = -0.25. The change
        # is -1, and 0.5 of the step is added: -1.125. s'y / y'y is 0.25 / 1.125 = 2/9, and so is H after the
        # only pair. From 0.75, whose gradient is 3, the second step is -(0.5 * 4 / 5) * 2/9 * 3.
        x = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
        optimizer = OnlineLBFGS([x], lr=0.5, tau=4.0, damping=0.5, initial_scale=0.125)
        closure = Closure([x], lambda: 2 * x.square().sum())
        assert optimizer.step(closure).item() == 2.0
        assert x.item() == 0.75
        ((s, y, _),) = history_of(optimizer).list_newest_first()
        assert (s.item(), y.item()) == (-0.25, -1.125)
        optimizer.step(closure)
        assert x.item() == pytest.approx(0.75 - 0.4 * 2 / 9 * 3)

    def test_c_scales_the_terms_of_pairs_and_the_step(self):
        # In one dimension, the new H is c s / y, and the step is divided by c.
        moved = []
        for c in (1.0, 0.1):
            x = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
            optimizer = OnlineLBFGS([x], lr=0.5, c=c, initial_scale=c * 0.1)
            closure = Closure([x], lambda x=x: 2 * x.square().sum())
            optimizer.step(closure)
            optimizer.step(closure)
            moved.append(x.item())
        assert moved[0] == pytest.approx(moved[1])

    def test_negative_curvature_is_left_out(self):
        x = nn.Parameter(torch.tensor([1.0, 0.0]))
        optimizer = OnlineLBFGS([x])
        for _ in range(3):
            optimizer.step(Closure([x], lambda: -x.square().sum()))
        assert len(history_of(optimizer)) == 0
        assert torch.isfinite(x).all()


class TestDamped:
    def test_curvature_stays_positive_where_the_function_is_not_convex(self):
        point, closure = make_waves()
        optimizer = DampedLBFGS([point], lr=0.1, delta=1.0, history_size=50)
        negative = 0
        for step in range(30):
            optimizer.step(closure)
            s = closure.seen[-1][0] - closure.seen[-2][0]
            negative += bool(s.dot(self.find_change(point, closure)) <= 0)
            assert len(history_of(optimizer)) == step + 1
            stored_s, stored_y, curvature = next(history_of(optimizer).list_newest_first())
            torch.testing.assert_close(stored_s, s)
            torch.testing.assert_close(curvature, stored_s.dot(stored_y))
            assert curvature >= 0.25 * 1.0 * s.dot(s) * (1 - 1e-9)  # gamma is at least delta
        assert negative > 0, "the test meets no negative curvature"

    @staticmethod
    def find_change(point, closure):
        """Compute the change of the gradient over the last two evaluations, and restore the point."""
        (start,), (end,) = closure.seen[-2:]
        gradients = []
        for place in (start, end):
            point.data.copy_(place)
            gradients.append(torch.autograd.grad(closure.compute_loss(), point)[0])
        return gradients[1] - gradients[0]

    def test_negative_curvature_by_hand(self):
        # f = -2 x^2 has the gradient -4 x. From 1, the first step is -0.5 * -4 = 2, and the change is -8.
        # With delta = 1, s'B s is 4 and s'y is -16, so the share of y is 0.75 * 4 / 20 = 0.15, and the new
        # change is 0.15 * -8 + 0.85 * 2 = 0.5: its product with the step is 1, a quarter of 4.
        x = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
        optimizer = DampedLBFGS([x], lr=0.5, delta=1.0)
        optimizer.step(Closure([x], lambda: -2 * x.square().sum()))
        assert x.item() == 3.0
        ((s, y, curvature),) = history_of(optimizer).list_newest_first()
        assert (s.item(), y.item(), curvature.item()) == pytest.approx((2.0, 0.5, 1.0))

    def test_positive_curvature_is_not_damped(self):
        x, hessian, closure = make_quadratic()
        optimizer = DampedLBFGS([x], lr=0.01)
        optimizer.step(closure)
        ((s, y, _),) = history_of(optimizer).list_newest_first()
        torch.testing.assert_close(y, hessian @ s)
        assert optimizer.state[x]["scale"] == pytest.approx(min(1.0, (s.dot(y) / y.dot(y)).item()))

    def test_step_size_falls_with_the_exponent(self):
        sizes = []
        for decay in (0.0, 0.5):
            x = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
            optimizer = DampedLBFGS([x], lr=0.1, decay=decay)
            closure = Closure([x], lambda x=x: x.sum())  # no curvature: H is always the identity
            for _ in range(4):
                optimizer.step(closure)
            sizes.append(closure.seen[-2][0].item() - x.item())
        assert sizes[0] != pytest.approx(0) and sizes[1] == pytest.approx(sizes[0] / 2)


class TestWolfe:
    def test_loss_falls_in_every_step(self):
        model, closure = make_network()
        optimizer = WolfeLBFGS(model.parameters(), max_iter=4, history_size=10)
        losses = [optimizer.step(closure).item() for _ in range(30)]
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] < 0.01 * losses[0]

    def test_narrow_pairs_reach_a_similar_loss(self):
        reached = {}
        for pairs_dtype in ("float32", "bfloat16"):
            model, closure = make_network()
            optimizer = WolfeLBFGS(model.parameters(), max_iter=4, pairs_dtype=pairs_dtype)
            for _ in range(30):
                optimizer.step(closure)
            reached[pairs_dtype] = closure().item()
        assert max(reached.values()) < 0.01
        assert reached["bfloat16"] < 2 * reached["float32"]

    @pytest.mark.parametrize(("max_iter", "max_eval", "limit"), [(3, 100, 3), (20, 1, 1), (20, 4, 3)])
    def test_iterations_are_limited(self, max_iter, max_eval, limit):
        model, closure = make_network()
        optimizer = WolfeLBFGS(model.parameters(), max_iter=max_iter, max_eval=max_eval)
        first = next(model.parameters())
        for _ in range(5):
            before = optimizer.state[first].get("added", 0)
            optimizer.step(closure)
            assert 1 <= optimizer.state[first]["added"] - before <= limit

    def test_history_is_cleared_if_its_direction_leads_nowhere(self):
        model, closure = make_network()
        optimizer = WolfeLBFGS(model.parameters(), max_iter=1)
        for _ in range(5):
            optimizer.step(closure)
        state = optimizer.state[next(model.parameters())]
        assert state["added"] == 5
        state["curvatures"].neg_()  # now H is not positive definite
        before = closure().item()
        optimizer.step(closure)
        assert state["added"] == 1 and closure().item() < before

    def test_minimum_is_left_alone(self):
        x = nn.Parameter(torch.zeros(3))
        closure = Closure([x], lambda: x.square().sum())
        WolfeLBFGS([x]).step(closure)
        assert len(closure.seen) == 1 and x.tolist() == [0, 0, 0]

    def test_parameters_are_restored_if_no_point_is_lower(self):
        x = nn.Parameter(torch.tensor([1.0, 2.0]))
        losses = iter([1.0] + [torch.inf] * 100)

        def closure():
            x.grad = torch.ones(2)
            return torch.tensor(next(losses))

        WolfeLBFGS([x]).step(closure)
        assert x.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("kind", STOCHASTIC)
def test_closure_is_called_twice_and_the_first_loss_returned(kind):
    model, closure = make_network()
    optimizer = kind(model.parameters())
    for step in range(1, 4):
        expected = closure.compute_loss().item()
        assert optimizer.step(closure).item() == expected
        assert len(closure.seen) == 2 * step


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("pairs_dtype", [None, "float32", "bfloat16"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_state_has_the_declared_size(kind, pairs_dtype, dtype):
    parameters = [nn.Parameter(torch.ones(50, 40, dtype=dtype)), nn.Parameter(torch.ones(1000, dtype=dtype))]
    optimizer = kind(parameters, history_size=6, pairs_dtype=pairs_dtype)
    optimizer.step(Closure(parameters, lambda: sum(p.square().sum() for p in parameters)))
    spec = {OnlineLBFGS: plugin.ONLINE, DampedLBFGS: plugin.DAMPED, WolfeLBFGS: plugin.WOLFE}[kind]
    assert optimizer.defaults["history_size"] == 6
    declared = (
        spec.state_vectors({**optimizer.defaults, "element_bytes": dtype.itemsize}) * 3000 * dtype.itemsize
    )
    assert count_bytes(optimizer) == pytest.approx(declared, rel=0.005)


@pytest.mark.parametrize("kind", CLASSES)
def test_bfloat16_pairs_take_half(kind):
    sizes = {}
    for pairs_dtype in ("float32", "bfloat16"):
        x = nn.Parameter(torch.ones(10_000))
        optimizer = kind([x], history_size=5, pairs_dtype=pairs_dtype)
        optimizer.step(Closure([x], lambda x=x: x.square().sum()))
        assert str(optimizer.state[x]["steps"].dtype) == f"torch.{pairs_dtype}"
        sizes[pairs_dtype] = count_bytes(optimizer)
    assert sizes["bfloat16"] == pytest.approx(sizes["float32"] / 2, rel=0.005)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("pairs_dtype", [None, "bfloat16"])
def test_state_dict_round_trip_continues_identically(kind, pairs_dtype, tmp_path):
    settings = {"history_size": 4, "lr": 0.05, "pairs_dtype": pairs_dtype}
    more = (
        {"tau": 10.0} if kind is OnlineLBFGS else {"decay": 0.5} if kind is DampedLBFGS else {"max_iter": 3}
    )
    model, closure = make_network()
    optimizer = kind(model.parameters(), **settings, **more)
    for _ in range(6):
        optimizer.step(closure)
    torch.save([model.state_dict(), optimizer.state_dict()], tmp_path / "checkpoint.pt")

    twin, twin_closure = make_network()
    restored = kind(twin.parameters())
    weights, state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    twin.load_state_dict(weights)
    restored.load_state_dict(state)
    (old,), (new,) = optimizer.state.values(), restored.state.values()
    assert old.keys() == new.keys()
    for key, value in old.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == new[key].dtype and torch.equal(value, new[key]), key
        else:
            assert value == new[key], key
    for _ in range(4):
        assert torch.equal(optimizer.step(closure), restored.step(twin_closure))
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            assert torch.equal(p, q)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("pairs_dtype", ["float32", "bfloat16"])
def test_filled_history_is_full_and_the_next_step_descends(kind, pairs_dtype):
    model, closure = make_network()
    optimizer = kind(model.parameters(), history_size=7, pairs_dtype=pairs_dtype)
    plugin.fill_history(optimizer)
    assert len(history_of(optimizer)) == 7
    before = closure().item()
    size = count_bytes(optimizer)
    optimizer.step(closure)
    assert closure().item() < before
    assert len(history_of(optimizer)) == 7
    assert count_bytes(optimizer) == size


def test_filled_wolfe_takes_two_iterations_at_most():
    model, closure = make_network()
    optimizer = WolfeLBFGS(model.parameters(), history_size=7)
    plugin.fill_history(optimizer)
    optimizer.step(closure)
    assert len(closure.seen) <= 1 + 2 * 25
    assert optimizer.state[next(model.parameters())]["added"] <= 7 + 2


@pytest.mark.parametrize("kind", CLASSES)
def test_parameters_in_bfloat16_are_trained(kind):
    model, closure = make_network(torch.bfloat16)
    optimizer = kind(model.parameters(), lr=0.1)
    first = closure().item()
    for _ in range(40):
        optimizer.step(closure)
    assert closure().item() < 0.7 * first
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("kind", CLASSES)
def test_unused_parameters_stay(kind):
    used, unused = nn.Parameter(torch.tensor([2.0])), nn.Parameter(torch.tensor([5.0]))
    optimizer = kind([used, unused])
    for _ in range(3):
        optimizer.step(Closure([used, unused], lambda: used.square().sum()))
    assert unused.item() == 5.0 and used.item() != 2.0


@pytest.mark.parametrize("kind", CLASSES)
def test_host_is_refused_where_parameters_are_on_the_host(kind):
    with pytest.raises(ValueError, match="pairs_on = 'host' changes nothing on a CPU"):
        kind([nn.Parameter(torch.ones(2))], pairs_on="host")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("pairs_dtype", ["float32", "bfloat16"])
def test_pairs_on_the_host_give_the_same_steps(kind, pairs_dtype):
    reached = []
    for pairs_on in ("device", "host"):
        x = nn.Parameter(torch.linspace(-1, 1, 100, device="cuda"))
        optimizer = kind([x], pairs_dtype=pairs_dtype, pairs_on=pairs_on)
        for _ in range(5):
            optimizer.step(Closure([x], lambda x=x: (x.cosh() + x**2).sum()))
        steps = optimizer.state[x]["steps"]
        assert steps.device.type == ("cpu" if pairs_on == "host" else "cuda")
        twin = kind([x], pairs_on=pairs_on)
        twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        assert twin.state[x]["steps"].device == steps.device
        reached.append(x.detach().cpu())
    assert torch.equal(*reached)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"history_size": 0}, "invalid history_size: 0 is below 1"),
        ({"pairs_dtype": "float16"}, "invalid pairs_dtype: 'float16' is not 'float32' or 'bfloat16'"),
        ({"pairs_on": "disk"}, "invalid pairs_on: 'disk' is not 'device' or 'host'"),
        ({"lr": 0.0}, "invalid lr: 0.0 is not a finite number above 0"),
        ({"lr": float("nan")}, "invalid lr: nan is not a finite number above 0"),
    ],
)
def test_values_out_of_range_are_named(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind([nn.Parameter(torch.ones(1))], **settings)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (OnlineLBFGS, {"c": 1.5}, "invalid c: 1.5"),
        (OnlineLBFGS, {"tau": 0.0}, "invalid tau: 0.0"),
        (OnlineLBFGS, {"damping": -1.0}, "invalid damping: -1.0"),
        (OnlineLBFGS, {"initial_scale": 0.0}, "invalid initial_scale: 0.0"),
        (DampedLBFGS, {"delta": 0.0}, "invalid delta: 0.0"),
        (DampedLBFGS, {"decay": -0.5}, "invalid decay: -0.5"),
        (WolfeLBFGS, {"max_iter": 0}, "invalid max_iter: 0"),
        (WolfeLBFGS, {"max_eval": 0}, "invalid max_eval: 0"),
        (WolfeLBFGS, {"tolerance_grad": -1.0}, "invalid tolerance_grad: -1.0"),
    ],
)
def test_own_values_out_of_range_are_named(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind([nn.Parameter(torch.ones(1))], **settings)


def test_several_groups_dtypes_and_complex_parameters_are_refused():
    a, b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match="OnlineLBFGS has one parameter group"):
        OnlineLBFGS([{"params": [a]}, {"params": [b]}])
    with pytest.raises(ValueError, match="the parameters differ in dtype"):
        OnlineLBFGS([a, nn.Parameter(torch.ones(1, dtype=torch.float64))])
    with pytest.raises(ValueError, match=r"a parameter has the dtype torch\.complex64"):
        OnlineLBFGS([nn.Parameter(torch.ones(1, dtype=torch.complex64))])
