"""Tests of the members as optimizers."""

from __future__ import annotations

import inspect

import pytest

heavyball = pytest.importorskip("heavyball")
pytest.importorskip("xbench_heavyball")

import torch  # noqa: E402
import xbench  # noqa: E402
from torch import nn  # noqa: E402
from xbench.testing import start_training  # noqa: E402

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


def start(name, **settings):
    return start_training(xbench_heavyball.get_spec(name), settings)


@pytest.mark.parametrize("name", SERVING)
def test_resumed_steps_equal_uninterrupted_ones_and_lower_the_loss(name):
    whole, resumed = start(name), start(name)
    first = whole.step(5)[0]  # after an odd step, SOAP's preconditioner is due in the next one
    checkpoint, losses = whole.checkpoint(), whole.step(5)
    resumed.resume(checkpoint)
    assert resumed.step(5) == losses
    final = whole.evaluate()
    assert resumed.evaluate() == final
    assert final < first


@pytest.mark.parametrize("name", [name for name, entry in OPTIMIZERS.items() if entry.vectors])
@pytest.mark.parametrize("mars", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_state_has_the_declared_size(name, mars, dtype):
    training = start_training(xbench_heavyball.get_spec(name), {"mars": mars}, dtype=dtype)
    training.step(2)
    entry, size = OPTIMIZERS[name], 2 if dtype == "bfloat16" else 1  # of float32, in those of a parameter
    assert training.declared_vectors() == (entry.vectors + mars) * size + entry.copies
    assert training.count_vectors() == pytest.approx(training.declared_vectors(), abs=0.01)


def test_size_of_the_state_is_unknown_if_it_is_not_stored_in_float32():
    for settings in ({"storage_dtype": "bfloat16"}, {"ecc": "bf16+8"}):
        assert start("AdamW", **settings).declared_vectors() is None


@pytest.mark.parametrize(
    ("name", "calls"),
    [("AdamW", 4), ("SAMWrapper-AdamW", 8), ("PSGDKron-FiniteDifferences", 7), ("PSGDKron-Hessian", 4)],
)
def test_closure_calls(name, calls):
    training = start(name)
    training.step(4)
    assert sum(training.closures) == calls


@pytest.mark.parametrize("name", ["LATHER", "PSGDKron", "PSGDLRA"])
def test_second_derivatives_change_the_steps(name):
    losses = [start(f"{name}{variant}").step(6) for variant in ("", "-Hessian", "-FiniteDifferences")]
    assert losses[0] != losses[1] and losses[0] != losses[2]


def test_second_derivatives_are_used_only_where_the_preconditioner_is_updated():
    training = start("PSGDKron-FiniteDifferences", preconditioner_update_probability=0.5)
    training.step(20)
    updates = training.closures.count(2)
    assert 0 < updates < 19 and set(training.closures) == {1, 2}


def test_nothing_is_compiled_and_the_global_mode_is_kept(monkeypatch):
    monkeypatch.setattr(heavyball.utils, "compile_mode", "default")
    monkeypatch.setattr(heavyball.utils.fusions, "compile", lambda *_, **__: pytest.fail("it compiled"))
    for name in ("SOAP", "SAMWrapper-SFAdamW"):
        training = start(name, storage_dtype="bfloat16")
        training.step(2)
        training.evaluate()
        assert heavyball.utils.compile_mode == "default"


def test_mode_is_kept_if_a_step_fails(monkeypatch):
    monkeypatch.setattr(heavyball.utils, "compile_mode", "default")
    with pytest.raises(ZeroDivisionError):
        start("AdamW").optimizer.step(lambda: 1 / 0)
    assert heavyball.utils.compile_mode == "default"


def test_mode_of_heavyball_is_in_effect_if_compilation_is_asked_for(monkeypatch):
    monkeypatch.setattr(heavyball.utils, "compile_mode", "default")
    modes = []
    for compiled in (False, True):
        training = start("AdamW", compiled=compiled)
        training.optimizer._step = lambda group: modes.append(heavyball.utils.compile_mode)
        training.step()
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
    ],
)
def test_names_that_cannot_serve_are_refused_with_the_reason(name, message):
    with pytest.raises(xbench.XbenchError, match=message):
        xbench_heavyball.get_spec(name)


@pytest.mark.parametrize("name", ["soap", "Lion", "SAMWrapper-Lion"])
def test_other_names_have_no_spec(name):
    with pytest.raises(KeyError):
        xbench_heavyball.get_spec(name)


def test_every_setting_reaches_the_optimizer():
    settings = {"lr": 0.3, "betas": [0.4, 0.5], "precondition_frequency": 4, "max_precond_dim": 7}
    optimizer = start("SOAP", **settings).optimizer
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"], group["max_precond_dim"]) == (0.3, [0.4, 0.5], 7)
    assert optimizer.precond_schedule == 1 / 4
    assert start("SAMWrapper-AdamW", ball=0.7).optimizer.param_groups[0]["ball"] == 0.7


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
    assert start(name, weight_decay=1.0, **changed).step(4) == start(name, weight_decay=1.0).step(4)


@pytest.mark.parametrize("clipping", ["l2_clip_", "none", "default"])
def test_clipping_is_named(clipping):
    assert start("PSGDKron", update_clipping=clipping).step(2)


def test_parameter_groups_are_accepted():
    spec = xbench_heavyball.get_spec("PSGDLRA")
    model = nn.Linear(4, 3)
    optimizer = spec.load_factory()([{"params": [model.weight], "lr": 0.5}, {"params": [model.bias]}])
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.001]
