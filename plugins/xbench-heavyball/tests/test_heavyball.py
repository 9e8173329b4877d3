"""Tests of the members as optimizers: they learn, hold the state they declare, and can be resumed."""

from __future__ import annotations

import inspect
import io

import pytest

heavyball = pytest.importorskip("heavyball")
pytest.importorskip("xbench_heavyball")

import torch  # noqa: E402
import xbench  # noqa: E402
from torch import nn  # noqa: E402

import xbench_heavyball  # noqa: E402
from xbench_heavyball.catalogue import OPTIMIZERS, UNFIT  # noqa: E402
from xbench_heavyball.factories import WITHOUT_EFFECT  # noqa: E402

pytestmark = [pytest.mark.plugin, pytest.mark.filterwarnings("ignore")]

# All optimizers can be wrapped alike, so a few are enough: one of each kind, one with modes among them.
WRAPPED = ["SAMWrapper-AdamW", "SAMWrapper-PSGDKron", "SAMWrapper-SFAdamW", "SAMWrapper-SOAP"]
SERVING = [
    name
    for name in xbench_heavyball.list_members()
    if name not in UNFIT and (name in WRAPPED or not name.startswith("SAMWrapper"))
]


class Problem:
    """A classification problem with a closure like that of xbench, and an optimizer for it."""

    def __init__(self, name, **settings):
        self.spec = xbench_heavyball.get_spec(name)
        torch.manual_seed(0)
        self.inputs = torch.randn(32, 6)
        self.labels = self.inputs[:, :3].argmax(1)
        self.model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
        self.optimizer = self.spec.load_factory()(list(self.model.parameters()), **settings)
        self.calls = 0

    def closure(self):
        self.calls += 1
        for parameter in self.model.parameters():
            parameter.grad = None
        with torch.enable_grad():
            loss = nn.functional.cross_entropy(self.model(self.inputs), self.labels)
            loss.backward(create_graph=self.spec.backward == "create_graph")
        return loss.detach().double()

    def train(self, steps):
        if hasattr(self.optimizer, "train"):
            self.optimizer.train()
        return [self.optimizer.step(self.closure).item() for _ in range(steps)]

    def evaluate(self):
        if hasattr(self.optimizer, "eval"):
            self.optimizer.eval()
        return self.closure().item()

    def save(self):
        file = io.BytesIO()
        torch.save([self.model.state_dict(), self.optimizer.state_dict(), torch.get_rng_state()], file)
        file.seek(0)
        return file

    def load(self, file):
        weights, state, generator = torch.load(file, weights_only=True)
        self.model.load_state_dict(weights)
        self.optimizer.load_state_dict(state)
        torch.set_rng_state(generator)


@pytest.mark.parametrize("name", SERVING)
def test_resumed_steps_equal_uninterrupted_ones_and_lower_the_loss(name):
    whole, resumed = Problem(name), Problem(name)
    losses = whole.train(5)  # after an odd step, SOAP's preconditioner is due in the next one
    saved = whole.save()
    losses += whole.train(5)
    resumed.load(saved)
    assert resumed.train(5) == losses[5:]
    final = whole.evaluate()
    assert resumed.evaluate() == final
    assert final < losses[0]


@pytest.mark.parametrize("name", [name for name, entry in OPTIMIZERS.items() if entry.vectors])
@pytest.mark.parametrize("mars", [False, True])
def test_state_has_the_declared_size(name, mars):
    problem = Problem(name, mars=mars)
    problem.train(2)
    elements = sum(parameter.numel() for parameter in problem.model.parameters())
    expected = problem.spec.state_vectors(problem.optimizer.defaults)
    assert expected == OPTIMIZERS[name].vectors + mars
    # Scalars, such as step counts and norms, are a few elements for each parameter.
    assert count_elements(problem.optimizer) == pytest.approx(expected * elements, abs=8)


def test_size_of_the_state_is_unknown_if_it_is_not_stored_in_float32():
    for settings in ({"storage_dtype": "bfloat16"}, {"ecc": "bf16+8"}):
        problem = Problem("AdamW", **settings)
        assert problem.spec.state_vectors(problem.optimizer.defaults) is None


def count_elements(optimizer):
    def find(value):
        if isinstance(value, dict):
            return [tensor for item in value.values() for tensor in find(item)]
        return [value] if isinstance(value, torch.Tensor) else []

    return sum(tensor.numel() for tensor in find(dict(optimizer.state)))


@pytest.mark.parametrize(
    ("name", "calls"),
    [("AdamW", 4), ("SAMWrapper-AdamW", 8), ("PSGDKron-FiniteDifferences", 7), ("PSGDKron-Hessian", 4)],
)
def test_closure_calls(name, calls):
    problem = Problem(name)
    problem.train(4)
    assert problem.calls == calls


@pytest.mark.parametrize("name", ["LATHER", "PSGDKron", "PSGDLRA"])
def test_second_derivatives_change_the_steps(name):
    losses = [Problem(f"{name}{variant}").train(6) for variant in ("", "-Hessian", "-FiniteDifferences")]
    assert losses[0] != losses[1] and losses[0] != losses[2]


def test_nothing_is_compiled_and_the_global_mode_is_kept(monkeypatch):
    monkeypatch.setattr(heavyball.utils, "compile_mode", "default")
    monkeypatch.setattr(heavyball.utils.fusions, "compile", lambda *_, **__: pytest.fail("it compiled"))
    for name in ("SOAP", "SAMWrapper-SFAdamW"):
        problem = Problem(name, storage_dtype="bfloat16")
        problem.train(2)
        problem.evaluate()
        assert heavyball.utils.compile_mode == "default"


def test_mode_is_kept_if_a_step_fails(monkeypatch):
    monkeypatch.setattr(heavyball.utils, "compile_mode", "default")
    with pytest.raises(ZeroDivisionError):
        Problem("AdamW").optimizer.step(lambda: 1 / 0)
    assert heavyball.utils.compile_mode == "default"


def test_mode_of_heavyball_is_in_effect_if_compilation_is_asked_for(monkeypatch):
    monkeypatch.setattr(heavyball.utils, "compile_mode", "default")
    modes = []
    for compiled in (False, True):
        problem = Problem("AdamW", compiled=compiled)
        problem.optimizer._step = lambda group: modes.append(heavyball.utils.compile_mode)
        problem.train(1)
    assert modes == [None, "default"]


@pytest.mark.parametrize(
    "name", ["PSGDKron", "PSGDLRA", "PSGDLRA-Hessian", "SAMWrapper-SFAdamW", "SAMWrapper-SOAP", "SOAP"]
)
def test_scalars_are_trained(name):
    spec = xbench_heavyball.get_spec(name)
    scalar, vector = nn.Parameter(torch.tensor(3.0)), nn.Parameter(torch.ones(2))
    optimizer = spec.load_factory()([scalar, vector], lr=0.1)

    def closure():
        scalar.grad = vector.grad = None
        with torch.enable_grad():
            loss = scalar**2 + (vector**4).sum()
            loss.backward(create_graph=spec.backward == "create_graph")
        return loss.detach()

    losses = [optimizer.step(closure).item() for _ in range(5)]
    if hasattr(optimizer, "eval"):
        optimizer.eval()
    assert losses[-1] < losses[0]
    assert scalar.shape == () and scalar.item() < 3


def test_every_optimizer_of_the_package_is_a_member():
    classes = [name for name in heavyball.__all__ if inspect.isclass(getattr(heavyball, name))]
    members = xbench_heavyball.list_members()
    assert sorted(classes) == sorted([*(name for name in members if "-" not in name), "SAMWrapper"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("SplitOpt", "which a suite cannot write"),
        ("SAMWrapper", "its name must say which"),
        ("soap", "Did you mean 'SOAP'"),
        ("Lion", "no optimizer 'Lion'"),
    ],
)
def test_names_that_cannot_serve_are_refused_with_the_reason(name, message):
    with pytest.raises(xbench.XbenchError, match=message):
        xbench_heavyball.get_spec(name)


def test_every_setting_reaches_the_optimizer():
    settings = {"lr": 0.3, "betas": [0.4, 0.5], "precondition_frequency": 4, "max_precond_dim": 7}
    optimizer = Problem("SOAP", **settings).optimizer
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"], group["max_precond_dim"]) == (0.3, [0.4, 0.5], 7)
    assert optimizer.precond_schedule == 1 / 4
    assert Problem("SAMWrapper-AdamW", ball=0.7).optimizer.param_groups[0]["ball"] == 0.7


ALTERNATIVES = {
    "beta2_scale": 0.3,
    "cautious_weight_decay": True,
    "decoupled_weight_decay": True,
    "eps": 0.5,
    "lower_bound_beta": 0.1,
    "momentum_into_precond_update": False,
    "palm": True,
    "r": 3.0,
    "update_clipping": "l2_normalization_",
    "weight_lr_power": 0.5,
}


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_parameters_without_effect_are_not_settings(name):
    settings = inspect.signature(xbench_heavyball.get_spec(name).load_factory()).parameters
    assert not WITHOUT_EFFECT[name] & set(settings)
    changed = {setting: ALTERNATIVES[setting] for setting in WITHOUT_EFFECT[name]}
    assert Problem(name, weight_decay=1.0, **changed).train(4) == Problem(name, weight_decay=1.0).train(4)


@pytest.mark.parametrize("clipping", ["l2_clip_", "none", "default"])
def test_clipping_is_named(clipping):
    assert Problem("PSGDKron", update_clipping=clipping).train(2)


def test_parameter_groups_are_accepted():
    spec = xbench_heavyball.get_spec("PSGDLRA")
    model = nn.Linear(4, 3)
    optimizer = spec.load_factory()([{"params": [model.weight], "lr": 0.5}, {"params": [model.bias]}])
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.001]
