"""The check of an optimizer before a run: it steps as training does, and says what breaks the contract."""

from __future__ import annotations

import math
import re
from functools import partial

import pytest
import torch
from torch import nn

from xbench.components.registry import load, origin, registrations
from xbench.components.specs import OptimizerSpec
from xbench.training.trial import MAX_CLOSURES, try_optimizer

CONTRACT = (
    "xbench calls optimizer.step(closure); closure() clears .grad, computes loss and gradients, and returns "
    "the loss without a graph; there are no gradients before the first call"
)


class Descent(torch.optim.Optimizer):
    """Gradient descent whose parts can be overridden."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @property
    def parameters(self):
        return [p for group in self.param_groups for p in group["params"]]

    def step(self, closure):
        loss = closure()
        self.descend()
        return loss

    @torch.no_grad()
    def descend(self):
        for p in self.parameters:
            p.sub_(p.grad, alpha=0.1)


def tried(factory, spec=None, **params) -> str | None:
    return try_optimizer(OptimizerSpec(factory=factory, **(spec or {})), params)


def breach(text: str) -> str:
    return f"{text} ({CONTRACT})"


def told_without_place(factory, spec=None) -> str:
    """What is wrong with an optimizer of this file, without the line, which must be named."""
    told, places = re.subn(r" \(test_trial\.py:\d+\)", "", tried(factory, spec))
    assert places == 1
    return told


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize(
    "name", [name for name in registrations("optimizer") if origin("optimizer", name).startswith("xbench ")]
)
def test_optimizers_of_xbench_pass(name):
    assert try_optimizer(load("optimizer", name), {}) is None


class TestHyperparameters:
    @pytest.mark.parametrize(
        ("name", "params", "told"),
        [
            ("sgd", {"lr": -1}, "Invalid learning rate: -1"),
            ("adam", {"betas": (0.9, 1.5)}, "Invalid beta parameter at index 1: 1.5"),
            ("sgd", {"nesterov": True}, "Nesterov momentum requires a momentum and zero dampening"),
        ],
    )
    def test_objection_is_passed_on(self, name, params, told):
        assert try_optimizer(load("optimizer", name), params) == told

    @pytest.mark.parametrize("error", [LookupError, SystemExit])
    def test_objection_of_other_code_has_its_type_and_place(self, error):
        def build(params):
            raise error

        assert re.fullmatch(rf"{error.__name__} \(test_trial\.py:\d+\)", tried(build))

    def test_objection_in_a_step_is_named(self):
        class Late(Descent):
            def descend(self):
                raise ValueError("lr is too small")

        assert told_without_place(Late) == breach("it raised ValueError: lr is too small")

    @pytest.mark.parametrize(("name", "lr"), [("sgd", 1e38), ("adam", 1e30), ("lbfgs", 1e38)])
    def test_weights_that_run_away_are_for_the_cell_to_show(self, name, lr):
        assert try_optimizer(load("optimizer", name), {"lr": lr}) is None

    def test_integers_will_do(self):
        assert try_optimizer(load("optimizer", "sgd"), {"lr": 1, "momentum": 0}) is None

    def test_memory_error_is_not_the_optimizers(self):
        def build(params):
            raise MemoryError

        with pytest.raises(MemoryError):
            tried(build)


class Ascending(Descent):
    """SAM as it is often published: the ascent uses gradients from before the call."""

    def gradients(self):
        return [p.grad for p in self.parameters if p.grad is not None]

    def norm(self):
        return math.sqrt(sum(float(g.norm()) ** 2 for g in self.gradients()))

    def step(self, closure):
        norm = self.norm()
        for p in self.parameters:
            if p.grad is not None:
                p.data.add_(p.grad / norm)
        return super().step(closure)


class AscendingStrictly(Ascending):
    def norm(self):
        return torch.stack([g.norm() for g in self.gradients()]).norm()


class AtTheEnd(Descent):
    def step(self, closure):
        if all(p.grad is not None for p in self.parameters):
            self.descend()
        return closure()


class FromTheSecondStepOn(Descent):
    is_first = True

    def step(self, closure):
        if not self.is_first:
            self.descend()
        self.is_first = False
        return super().step(closure)


class IntoItsState(Descent):
    """It keeps the old gradients, in an attribute of its own, and has not used them yet."""

    def step(self, closure):
        self.previous = {p: [None if p.grad is None else p.grad.clone()] for p in self.parameters}
        return super().step(closure)


class Suspicious(Descent):
    def step(self, closure):
        for p in self.parameters:
            if p.grad is not None and not p.grad.isfinite().all():
                raise ArithmeticError("the gradient is not finite")
        return super().step(closure)


class Vectors(Ascending):
    """The fault is in what it does with vectors alone."""

    def gradients(self):
        return [p.grad for p in self.parameters if p.ndim == 1 and p.grad is not None]


class TestGradientsFromBefore:
    @pytest.mark.parametrize(
        "factory",
        [
            Ascending,
            AscendingStrictly,
            AtTheEnd,
            FromTheSecondStepOn,
            IntoItsState,
            Suspicious,
            Vectors,
        ],
    )
    def test_are_not_to_be_used(self, factory):
        assert tried(factory) == breach("it read .grad before its first closure call")

    def test_sparse_ones_neither(self):
        told = tried(AtTheEnd, {"gradients": "sparse"})
        assert told == breach("it read .grad before its first closure call")
        assert tried(Descent, {"gradients": "sparse"}) is None

    @pytest.mark.parametrize("set_to_none", [True, False])
    def test_may_be_cleared(self, set_to_none):
        class Clearing(Descent):
            def step(self, closure):
                self.zero_grad(set_to_none)
                return super().step(closure)

        assert tried(Clearing) is None

    def test_memory_that_nobody_has_written_is_not_taken_for_them(self):
        class Preallocating(Descent):
            def step(self, closure):
                if not self.state:
                    self.state["history"] = torch.empty(100, 8).fill_(math.nan)
                    self.state["more"] = torch.empty(10_000)
                return super().step(closure)

        assert tried(Preallocating) is None

    def test_nan_of_its_own_is_not_taken_for_them(self):
        class NotANumber(Descent):
            def descend(self):
                for p in self.parameters:
                    p.data.fill_(math.nan)

        assert tried(NotANumber) is None

    def test_weights_may_move_before_the_first_closure(self):
        class Looking(Descent):
            def step(self, closure):
                for p in self.parameters:
                    p.data.mul_(0.9)
                return super().step(closure)

        assert tried(Looking) is None


class TestClosure:
    def test_step_must_take_it(self):
        class Closureless(Descent):
            def step(self):
                self.descend()

        assert tried(Closureless) == breach("its step() takes no closure")

    def test_step_must_take_nothing_else(self):
        class Wanting(Descent):
            def step(self, closure, model):
                return super().step(closure)

        assert tried(Wanting) == breach("its step is step(closure, model)")

    def test_step_may_take_more(self):
        class Optional(Descent):
            def step(self, closure=None, *, scale=1.0, **more):
                return super().step(closure)

        assert tried(Optional) is None

    @pytest.mark.parametrize("skips_none", [True, False])
    def test_must_be_called(self, skips_none):
        class Ignoring(Descent):
            def step(self, closure=None):
                if not skips_none or all(p.grad is not None for p in self.parameters):
                    self.descend()

        assert tried(Ignoring) == breach("it never called the closure")

    def test_must_be_called_in_each_step(self):
        class EverySecond(Descent):
            steps = 0

            def step(self, closure):
                self.steps += 1
                if self.steps % 2:
                    super().step(closure)

        assert tried(EverySecond) == breach("it never called the closure in step 2")

    def test_takes_no_arguments(self):
        class Arguing(Descent):
            def step(self, closure):
                closure(backward=False)

        told = "it raised TypeError: closure() got an unexpected keyword argument 'backward'"
        assert told_without_place(Arguing) == breach(told)

    def test_computes_gradients_under_no_grad(self):
        class Quiet(Descent):
            step = torch.no_grad()(Descent.step)

        assert tried(Quiet) is None

    def test_that_cannot_compute_them_is_told(self):
        class Inferring(Descent):
            step = torch.inference_mode()(Descent.step)

        assert tried(Inferring).startswith("closure() failed when the optimizer called it: RuntimeError: ")

    def test_gives_a_plain_loss_and_new_gradients(self):
        class Observing(Descent):
            def step(self, closure):
                loss, again = closure(), closure()
                assert loss == again
                assert loss.dtype == torch.float64
                assert loss.shape == ()
                assert not loss.requires_grad
                first = [p.grad for p in self.parameters]
                closure()
                for p, gradient in zip(self.parameters, first, strict=True):
                    assert p.grad is not gradient
                    assert torch.equal(p.grad, gradient)
                return super().step(closure)

        assert tried(Observing) is None

    @pytest.mark.parametrize(
        ("use", "told"),
        [
            (lambda loss, p: loss.backward(), "it called backward() on the loss"),
            (lambda loss, p: torch.autograd.grad(loss, p), "it differentiated a loss or a gradient"),
            (lambda loss, p: torch.autograd.grad(p.grad.sum(), p), "it differentiated a loss or a gradient"),
        ],
    )
    def test_leaves_no_graph(self, use, told):
        class Differentiating(Descent):
            def step(self, closure):
                loss = closure()
                use(loss, self.parameters[0])

        assert tried(Differentiating) == breach(told)

    def test_may_be_called_without_end(self):
        calls = 0

        class Searching(Descent):
            def step(self, closure):
                nonlocal calls
                while True:
                    try:
                        closure()
                    except Exception:
                        continue
                    calls += 1

        assert tried(Searching) is None
        assert calls == 2 * MAX_CLOSURES  # once without gradients beforehand, once with


class TestParameters:
    def test_are_a_matrix_and_a_vector(self):
        seen = []

        def build(params):
            seen.append([p.ndim for p in params])
            return Descent(params)

        assert tried(build) is None
        assert seen == [[2, 1], [2, 1]]

    def test_are_the_hidden_matrices_of_three_layers_if_the_spec_says_so(self):
        seen = []

        def build(params, lr=0.1):
            seen.append([tuple(p.shape) for p in params])
            return torch.optim.SGD(params, lr=lr)

        assert tried(build, {"parameters": "matrices"}) is None
        assert seen == [[(4, 3), (2, 4)]] * 2

    @pytest.mark.parametrize("dimensions", [1, 2])
    def test_one_kind_may_be_what_it_needs(self, dimensions):
        """A matrix alone is tried, too; for a vector alone nobody would train a model."""

        def build(params):
            return Descent([p for p in params if p.ndim == dimensions])

        assert tried(build) is None

    def test_may_be_matrices_though_its_spec_does_not_say_so(self):
        assert tried(torch.optim.Muon) is None
        assert "Learning rate" in tried(torch.optim.Muon, lr=-1.0)


class TestBackward:
    def test_gradients_with_a_graph_can_be_differentiated(self):
        class Curious(Descent):
            def descend(self):
                with torch.enable_grad():
                    products = [(p.grad * p.detach()).sum() for p in self.parameters]
                    torch.autograd.grad(sum(products), self.parameters)
                super().descend()

        assert tried(Curious, {"backward": "create_graph"}) is None
        assert tried(Curious) == breach("it differentiated a loss or a gradient")

    def test_of_its_own(self):
        class Fused(Descent):
            def step(self, closure):
                closure.loss().backward()
                self.descend()

        assert tried(Fused, {"backward": "fused"}) is None
        assert tried(Fused) == "it called closure.loss(), which is for a spec that says backward='fused'"
        told = breach("its spec says backward='fused', but it called closure()")
        assert tried(Descent, {"backward": "fused"}) == told


class TestWhatTheFactoryIsTold:
    def test_it_asks_by_name(self):
        def build(params, named_parameters, model, total_steps, steps_per_epoch, num_examples, lr=0.1):
            assert [name for name, _ in named_parameters] == [name for name, _ in model.named_parameters()]
            assert min(total_steps, steps_per_epoch, num_examples) > 0
            return Descent(params, lr)

        assert tried(build) is None

    @pytest.mark.parametrize("first", ["model", "named_parameters"])
    def test_the_first_parameter_may_be_for_something_else(self, first):
        def from_model(model):
            return Descent(list(model.parameters()))

        def from_names(named_parameters):
            return Descent([p for _, p in named_parameters])

        assert tried(from_model if first == "model" else from_names) is None


class TestRest:
    def tried(self, **rest):
        spec = OptimizerSpec(factory=torch.optim.Muon, parameters="matrices")
        return try_optimizer(spec, {"rest": rest} if rest else {})

    def test_is_tried_with_its_settings(self):
        assert self.tried() is None
        assert self.tried(name="sgd", lr=0.1) is None
        assert self.tried(name="adamw", lr=-1.0) == "Invalid learning rate: -1.0"

    def test_must_update_all_parameters(self):
        told = self.tried(name="muon")
        assert told == "rest = 'muon' updates hidden matrices only, as it does"

    def test_must_step_without_a_closure(self):
        told = self.tried(name="lbfgs")
        assert told.startswith("rest = 'lbfgs' needs the closure in its step, but two optimizers ")

    def test_so_must_the_optimizer_of_matrices(self):
        told = tried(Descent, {"parameters": "matrices"})
        assert told.startswith("it needs the closure in its step, but two optimizers ")


class TestModes:
    def test_are_set_around_the_steps(self):
        called = []

        class Switching(Descent):
            def train(self):
                called.append("train")

            def step(self, closure):
                called.append("step")
                return super().step(closure)

            def eval(self):
                called.append("eval")

        assert tried(Switching) is None
        assert called == ["train", "step", "step", "eval"] * 2

    def test_train_alone_is_none(self):
        class Other(Descent):
            def train(self, data):
                raise AssertionError

        assert tried(Other) is None

    def test_what_goes_wrong_in_them_is_told(self):
        class Broken(Descent):
            def train(self):
                pass

            def eval(self):
                raise RuntimeError("no average yet")

        assert told_without_place(Broken) == breach("it raised RuntimeError: no average yet")


class Bare:
    """A wrapper that is not a `torch.optim.Optimizer`."""

    def __init__(self, params):
        self.base = torch.optim.Adam(params)

    def step(self, closure):
        return self.base.step(closure)


class TestInterface:
    def test_is_its_step_alone(self):
        assert tried(Bare) is None

    @pytest.mark.parametrize(
        ("made", "called"), [(None, "NoneType"), ([], "list"), (nn.Identity(), "Identity")]
    )
    def test_without_a_step(self, made, called):
        told = tried(lambda params: made)
        assert told == breach(f"its factory returned a {called}, which has no step()")

    def test_has_a_state_dict_if_it_is_resumable(self):
        told = tried(Bare, {"resumable": True})
        assert told == "its spec says that it is resumable, but it has no state_dict()"
        assert tried(Descent, {"resumable": True}) is None

    def test_what_its_spec_says_of_its_state_can_be_computed(self):
        spec = {"state_vectors": lambda hyperparameters: hyperparameters["momentum"]}
        assert told_without_place(Descent, spec) == "its spec's state_vectors raised KeyError: 'momentum'"

    def test_step_may_have_no_signature(self):
        class Opaque(Bare):
            def __init__(self, params):
                super().__init__(params)
                self.step = partial(self.base.step)
                self.step.__signature__ = None

        assert tried(Opaque) is None


def test_it_leaves_no_setting_of_torch_changed():
    before = torch.get_deterministic_debug_mode()
    assert tried(Descent) is None
    assert tried(Ascending) is not None
    assert torch.get_deterministic_debug_mode() == before
