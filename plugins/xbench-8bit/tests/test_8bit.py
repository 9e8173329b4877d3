"""Tests of the members as optimizers: they learn, hold the state they declare, and can be resumed."""

from __future__ import annotations

import inspect
import io

import pytest

bitsandbytes = pytest.importorskip("bitsandbytes")
pytest.importorskip("torchao")
pytest.importorskip("xbench_8bit")

import torch  # noqa: E402
import torchao.optim  # noqa: E402
import xbench  # noqa: E402
from torch import nn  # noqa: E402

import xbench_8bit  # noqa: E402
from xbench_8bit.catalogue import BITSANDBYTES_UNFIT, TORCHAO_UNFIT  # noqa: E402

pytestmark = [pytest.mark.plugin, pytest.mark.filterwarnings("ignore")]

FAMILIES = {"torchao": xbench_8bit.TORCHAO, "bitsandbytes": xbench_8bit.BITSANDBYTES}
UNFIT = {"torchao": TORCHAO_UNFIT, "bitsandbytes": BITSANDBYTES_UNFIT}
REFUSED = [(family, name) for family, names in UNFIT.items() for name in names]
SERVING = [
    (family, name) for family in FAMILIES for name in FAMILIES[family].members() if name not in UNFIT[family]
]


class Problem:
    """A classification problem with a closure like that of xbench, and an optimizer for it."""

    def __init__(self, family, name, **settings):
        self.spec = FAMILIES[family].member(name)
        torch.manual_seed(0)
        self.inputs = torch.randn(32, 64)
        self.labels = self.inputs[:, :3].argmax(1)
        # The first matrix has 4096 elements: smaller tensors are not quantised.
        self.model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 3))
        self.optimizer = self.spec.load_factory()(list(self.model.parameters()), lr=0.01, **settings)

    def closure(self):
        for parameter in self.model.parameters():
            parameter.grad = None
        with torch.enable_grad():
            loss = nn.functional.cross_entropy(self.model(self.inputs), self.labels)
            loss.backward()
        return loss.detach().double()

    def train(self, steps):
        return [self.optimizer.step(self.closure).item() for _ in range(steps)]

    def save(self):
        file = io.BytesIO()
        torch.save([self.model.state_dict(), self.optimizer.state_dict()], file)
        file.seek(0)
        return file

    def load(self, file):
        weights, state = torch.load(file, weights_only=True)
        self.model.load_state_dict(weights)
        self.optimizer.load_state_dict(state)


@pytest.mark.parametrize(("family", "name"), SERVING)
def test_resumed_steps_equal_uninterrupted_ones_and_lower_the_loss(family, name):
    whole, resumed = Problem(family, name), Problem(family, name)
    losses = whole.train(4)
    saved = whole.save()
    losses += whole.train(4)
    resumed.load(saved)
    assert resumed.train(4) == losses[4:]
    assert losses[-1] < losses[0]


def count_bytes(state):
    """Count the bytes of a tensor, of those that it wraps, or of all tensors in a dict; each storage once."""
    storages = {}

    def visit(value):
        if isinstance(value, dict):
            for item in value.values():
                visit(item)
        elif hasattr(value, "tensor_attrs"):  # torchao's quantised tensors
            visit({name: getattr(value, name) for name in value.tensor_attrs})
        elif isinstance(value, torch.Tensor):
            storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()

    visit(state)
    return sum(storages.values())


@pytest.mark.parametrize(
    ("family", "name", "bits"),
    [
        ("torchao", "AdamW8bit", 8),
        ("torchao", "AdamWFp8", 8),
        ("torchao", "AdamW4bit", 4),
        ("bitsandbytes", "AdamW8bit", 8),
    ],
)
def test_large_tensors_are_quantised(family, name, bits):
    problem = Problem(family, name)
    problem.train(1)
    moments = count_bytes(problem.optimizer.state[problem.model[0].weight])
    elements = problem.model[0].weight.numel()
    # Two moments, with a scale of 4 bytes for each block of 128 or 256, and two tables of at most 256 values.
    assert 2 * elements * bits / 8 < moments < 2 * elements * (bits / 8 + 4 / 128) + 2 * 4 * 256 + 8


@pytest.mark.parametrize(
    ("family", "name"),
    [(family, name) for family, name in SERVING if not name.endswith(("8bit", "4bit", "Fp8"))],
)
def test_state_has_the_declared_size(family, name):
    problem = Problem(family, name)
    problem.train(2)
    expected = problem.spec.state_vectors(problem.optimizer.defaults)
    parameters = count_bytes({index: p.detach() for index, p in enumerate(problem.model.parameters())})
    # `unorm_vec` of LAMB and LARS is a scalar for each tensor.
    assert count_bytes(dict(problem.optimizer.state)) == pytest.approx(expected * parameters, abs=4 * 4)


@pytest.mark.parametrize(
    ("name", "settings"), [("AdamW8bit", {}), ("AdamW", {"optim_bits": 8}), ("SGD8bit", {"momentum": 0.5})]
)
def test_size_of_quantised_state_is_not_declared(name, settings):
    problem = Problem("bitsandbytes", name, **settings)
    assert problem.spec.state_vectors(problem.optimizer.defaults) is None


def test_torchao_is_not_compiled_unless_asked_for(monkeypatch):
    seen = []
    original = torch.compiler.set_stance
    monkeypatch.setattr(
        torch.compiler, "set_stance", lambda *args, **kwargs: seen.append(args) or original(*args, **kwargs)
    )
    Problem("torchao", "AdamW8bit").train(1)
    assert seen == [("force_eager",)]


@pytest.mark.slow
def test_compiled_steps_are_those_of_the_eager_optimizer():
    eager, compiled = Problem("torchao", "AdamW8bit"), Problem("torchao", "AdamW8bit", compiled=True)
    assert eager.train(4) == pytest.approx(compiled.train(4), rel=1e-3)


def test_learning_rate_may_be_changed_to_a_number():
    problem = Problem("torchao", "AdamW8bit")
    problem.train(1)
    before = [parameter.detach().clone() for parameter in problem.model.parameters()]
    problem.optimizer.param_groups[0]["lr"] = 0.0
    problem.train(1)
    assert all(map(torch.equal, before, problem.model.parameters()))


def test_amsgrad_of_torchao_needs_compilation():
    with pytest.raises(ValueError, match="needs compiled = true"):
        Problem("torchao", "AdamW8bit", amsgrad=True)


def test_every_optimizer_of_the_packages_is_a_member():
    assert set(torchao.optim.__all__) == set(FAMILIES["torchao"].members())
    classes = [
        name
        for name, value in vars(bitsandbytes.optim).items()
        if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer)
    ]
    assert sorted(classes) == sorted(FAMILIES["bitsandbytes"].members())


@pytest.mark.parametrize(("family", "name"), REFUSED)
def test_members_that_cannot_serve_are_refused_with_the_reason(family, name):
    with pytest.raises(xbench.XbenchError, match=f"{name} cannot serve: "):
        FAMILIES[family].member(name)


def test_unknown_names_are_refused():
    with pytest.raises(xbench.XbenchError, match="Did you mean 'AdamW8bit'"):
        FAMILIES["bitsandbytes"].member("adamw8Bit")


def test_reasons_still_hold():
    parameter = nn.Parameter(torch.ones(64, 64))
    parameter.grad = torch.ones(64, 64)
    with pytest.raises(RuntimeError, match="broadcast shape"):
        bitsandbytes.optim.AdEMAMix32bit([parameter]).step()
    with pytest.warns(UserWarning, match="Falling back to non-paged"):
        bitsandbytes.optim.PagedAdamW8bit([parameter]).step()
    if not torch.cuda.is_available():
        with pytest.raises(AssertionError, match="only supports CUDA"):
            torchao.optim.CPUOffloadOptimizer([parameter])


@pytest.mark.parametrize("name", ["LARS", "LAMB8bit", "RMSprop", "SGD", "Adam32bit"])
def test_settings_without_effect_are_hidden(name):
    settings = inspect.signature(FAMILIES["bitsandbytes"].member(name).load_factory()).parameters
    hidden = {"LARS": "nesterov", "LAMB8bit": "max_unorm", "RMSprop": "momentum", "SGD": "dampening"}
    assert hidden.get(name, "min_8bit_size") not in settings
    assert not {"args", "amsgrad", "is_paged"} & set(settings)
