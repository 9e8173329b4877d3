"""Tests of the members as optimizers."""

from __future__ import annotations

import inspect

import pytest

bitsandbytes = pytest.importorskip("bitsandbytes")
pytest.importorskip("torchao")
pytest.importorskip("xbench_8bit")

import torch  # noqa: E402
import torchao.optim  # noqa: E402
import xbench  # noqa: E402
from torch import nn  # noqa: E402
from xbench.testing import start_training  # noqa: E402

import xbench_8bit  # noqa: E402
from xbench_8bit.catalogue import BITSANDBYTES_UNFIT, TORCHAO_UNFIT  # noqa: E402

pytestmark = [pytest.mark.plugin, pytest.mark.filterwarnings("ignore")]

FAMILIES = {"torchao": xbench_8bit.TORCHAO, "bitsandbytes": xbench_8bit.BITSANDBYTES}
UNFIT = {"torchao": TORCHAO_UNFIT, "bitsandbytes": BITSANDBYTES_UNFIT}
REFUSED = [(family, name) for family, names in UNFIT.items() for name in names]
SERVING = [
    (family, name) for family in FAMILIES for name in FAMILIES[family].members() if name not in UNFIT[family]
]


class Network(nn.Module):
    """Its first matrix has 4096 elements: smaller tensors are not quantised."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 512), nn.Linear(512, 8)

    def forward(self, numbers, tokens):
        return self.last(torch.tanh(self.first(numbers)))


def start(family, name, dtype="float32", **settings):
    return start_training(FAMILIES[family].member(name), {"lr": 0.003, **settings}, Network, dtype=dtype)


@pytest.mark.parametrize(("family", "name"), SERVING)
def test_resumed_steps_equal_uninterrupted_ones_and_lower_the_loss(family, name):
    whole, resumed = start(family, name), start(family, name)
    first = whole.step(4)[0]
    checkpoint, losses = whole.checkpoint(), whole.step(4)
    resumed.resume(checkpoint)
    assert resumed.step(4) == losses
    assert torch.equal(whole.weights(), resumed.weights())
    assert whole.evaluate() < first


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
    training = start(family, name)
    training.step()
    matrix = training.model.first.weight
    moments, elements = count_bytes(training.optimizer.state[matrix]), matrix.numel()
    # Two moments, with a scale of 4 bytes for each block of 128 or 256, and two tables of at most 256 values.
    assert 2 * elements * bits / 8 < moments < 2 * elements * (bits / 8 + 4 / 128) + 2 * 4 * 256 + 8


@pytest.mark.parametrize(
    ("family", "name"),
    [(family, name) for family, name in SERVING if not name.endswith(("8bit", "4bit", "Fp8"))],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_state_has_the_declared_size(family, name, dtype):
    if name == "PytorchLARS" and dtype == "bfloat16":
        pytest.skip("it asserts that parameters are in float32")
    training = start(family, name, dtype)
    training.step(2)
    assert training.count_vectors() == pytest.approx(training.declared_vectors(), abs=0.01)


@pytest.mark.parametrize(
    ("name", "settings"), [("AdamW8bit", {}), ("AdamW", {"optim_bits": 8}), ("SGD8bit", {"momentum": 0.5})]
)
def test_size_of_quantised_state_is_not_declared(name, settings):
    assert start("bitsandbytes", name, **settings).declared_vectors() is None


def test_torchao_is_not_compiled_unless_asked_for(monkeypatch):
    seen = []
    original = torch.compiler.set_stance
    monkeypatch.setattr(
        torch.compiler, "set_stance", lambda *args, **kwargs: seen.append(args) or original(*args, **kwargs)
    )
    start("torchao", "AdamW8bit").step()
    assert seen == [("force_eager",)]


@pytest.mark.slow
def test_compiled_steps_are_those_of_the_eager_optimizer():
    eager, compiled = start("torchao", "AdamW8bit"), start("torchao", "AdamW8bit", compiled=True)
    assert eager.step(4) == pytest.approx(compiled.step(4), rel=1e-3)


def test_learning_rate_may_be_changed_to_a_number():
    training = start("torchao", "AdamW8bit")
    training.step()
    before = training.weights()
    training.optimizer.param_groups[0]["lr"] = 0.0
    training.step()
    assert torch.equal(training.weights(), before)


def test_amsgrad_of_torchao_needs_compilation():
    with pytest.raises(ValueError, match="needs compiled = true"):
        start("torchao", "AdamW8bit", amsgrad=True)


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


@pytest.mark.parametrize("family", FAMILIES)
def test_other_names_have_no_spec(family):
    with pytest.raises(KeyError):
        FAMILIES[family].member("adamw8Bit")


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
