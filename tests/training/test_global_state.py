"""What a component does to the process's global state ends with it."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from xbench.training.global_state import Generators, guard_globals, seed_generators
from xbench.training.seeding import pin_tf32


def draws() -> list[float]:
    return [torch.rand(()).item(), random.random(), float(np.random.random())]


def test_generators_go_on_from_where_they_were():
    seed_generators(7)
    draws()
    states = Generators.now()
    expected = draws()
    seed_generators(1)
    states.restore()
    assert draws() == expected


def test_seeding_is_torchs_own():
    seed_generators(11)
    ours = torch.rand(3)
    torch.manual_seed(11)
    assert torch.equal(torch.rand(3), ours)


class OneOfMany:
    """A machine of several CUDA devices, of which the process uses one."""

    def __init__(self, monkeypatch):
        self.state, self.seeds = torch.tensor([5], dtype=torch.uint8), []
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "manual_seed", self.seeds.append)
        monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: self.state)
        monkeypatch.setattr(torch.cuda, "set_rng_state", self.restore)
        for name in ("manual_seed_all", "get_rng_state_all", "set_rng_state_all"):
            monkeypatch.setattr(torch.cuda, name, lambda *args, name=name: pytest.fail(name))

    def restore(self, state) -> None:
        self.state = state


def test_of_several_devices_only_the_used_one_is_seeded(monkeypatch):
    before = Generators.now()
    devices = OneOfMany(monkeypatch)
    seed_generators(7)
    assert devices.seeds == [7]
    states = Generators.from_plain(Generators.now().to_plain())
    devices.state = torch.tensor([6], dtype=torch.uint8)
    states.restore()
    assert devices.state.tolist() == [5]
    before.restore()
    assert devices.state.tolist() == [5]  # CUDA was not in use then


PRECISIONS = [
    lambda backends: setattr(backends, "fp32_precision", "tf32"),
    lambda backends: setattr(backends.cudnn, "fp32_precision", "ieee"),
    lambda backends: setattr(backends.cudnn.conv, "fp32_precision", "ieee"),
    lambda backends: setattr(backends.cudnn.rnn, "fp32_precision", "ieee"),
    lambda backends: setattr(backends.cuda.matmul, "fp32_precision", "tf32"),
    lambda backends: setattr(backends.mkldnn.matmul, "fp32_precision", "bf16"),
    lambda backends: setattr(backends.cudnn, "allow_tf32", not backends.cudnn.allow_tf32),
    lambda backends: setattr(backends.cuda.matmul, "allow_tf32", True),
    lambda backends: torch.set_float32_matmul_precision("medium"),
]


@pytest.mark.parametrize("change", PRECISIONS)
@pytest.mark.parametrize("is_allowed", [None, False, True])
def test_the_precision_of_float32_is_restored(change, is_allowed):
    def state():
        backends = torch.backends
        places = (backends, backends.cudnn, backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul)
        places += (backends.mkldnn.conv, backends.mkldnn.rnn, backends.mkldnn.matmul)
        older = backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32
        return [place.fp32_precision for place in places], older, torch.get_float32_matmul_precision()

    with guard_globals():
        if is_allowed is not None:
            pin_tf32(is_allowed)
        before = state()
        with guard_globals():
            change(torch.backends)
        assert state() == before


def test_everything_is_restored():
    seed_generators(3)
    states = Generators.now()
    expected = draws()
    states.restore()
    before = (torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads())
    with guard_globals():
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_num_threads(before[2] + 1)
        torch.use_deterministic_algorithms(True)
        torch.set_grad_enabled(False)
        torch.backends.mkldnn.enabled = False
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("medium")
        torch.autograd.set_detect_anomaly(True)
        random.random(), np.random.seed(0)
    assert (torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads()) == before
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.is_grad_enabled()
    assert not torch.is_anomaly_enabled()
    assert torch.backends.mkldnn.enabled
    assert not torch.backends.cudnn.benchmark
    assert torch.get_float32_matmul_precision() == "highest"
    assert draws() == expected
