"""What a component does to the process's global state ends with it."""

from __future__ import annotations

import random

import numpy as np
import torch

from xbench.training.global_state import Generators, guarded_globals, seed_generators


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


def test_everything_is_restored():
    seed_generators(3)
    states = Generators.now()
    expected = draws()
    states.restore()
    before = (torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads())
    with guarded_globals():
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
