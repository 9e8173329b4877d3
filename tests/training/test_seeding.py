"""Seeds, and what is asked of torch for results that repeat themselves."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from xbench.isolation.run import run_in_child
from xbench.training.global_state import guard_globals
from xbench.training.seeding import make_deterministic, pin_tf32, repeatability, seed_everything
from xbench.training.settings import TrainingSettings

SOURCES = {
    "torch": lambda: torch.rand(4).tolist(),
    "random": lambda: [random.random() for _ in range(4)],
    "numpy": lambda: np.random.random(4).tolist(),
}


@pytest.fixture(autouse=True)
def states():
    """The tests' own random numbers go on as if nothing had been."""
    kept = torch.get_rng_state(), random.getstate(), np.random.get_state()
    yield
    for restore, state in zip((torch.set_rng_state, random.setstate, np.random.set_state), kept, strict=True):
        restore(state)


def drawn_after(seed, draw):
    seed_everything(seed)
    return draw()


@pytest.mark.parametrize("draw", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63 + 7, 2**64 - 1])
def test_a_seed_fixes_what_is_drawn(draw, seed):
    first = drawn_after(seed, draw)
    draw()
    assert drawn_after(seed, draw) == first
    assert drawn_after(seed ^ 1, draw) != first
    assert drawn_after(seed ^ (1 << 31), draw) != first


def deterministic_facts(send):
    before = os.environ.get("CUBLAS_WORKSPACE_CONFIG"), torch.are_deterministic_algorithms_enabled()
    torch.backends.cudnn.benchmark = True
    make_deterministic()
    after = os.environ["CUBLAS_WORKSPACE_CONFIG"], torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    return before, after, torch.backends.cudnn.benchmark, warn_only


def test_deterministic_algorithms_are_of_the_process_that_asks():
    workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    for _ in range(2):  # the second child of the server finds nothing of the first one's
        before, after, benchmark, warn_only = run_in_child(deterministic_facts).get()
        assert before == (workspace, False)
        assert after == (workspace or ":4096:8", True)
        assert not benchmark
        assert not warn_only  # an operation that has no deterministic algorithm is an error


def test_a_workspace_that_is_set_stays(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    try:
        make_deterministic()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    finally:
        torch.use_deterministic_algorithms(False)


class TestTF32:
    @pytest.fixture(autouse=True)
    def flags(self):
        with guard_globals():
            yield

    @staticmethod
    def precisions() -> set[str]:
        cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
        return {cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision, cuda.matmul.fp32_precision}

    @pytest.mark.parametrize(("is_allowed", "precision"), [(False, "ieee"), (True, "tf32")])
    @pytest.mark.parametrize("first", [False, True])
    def test_holds_for_all_operations_and_both_interfaces(self, first, is_allowed, precision):
        pin_tf32(first)
        pin_tf32(is_allowed)
        assert self.precisions() == {precision}
        assert torch.backends.cudnn.allow_tf32 is is_allowed
        assert torch.backends.cuda.matmul.allow_tf32 is is_allowed
        assert torch.get_float32_matmul_precision() == ("high" if is_allowed else "highest")

    def test_is_not_inherited(self):
        pin_tf32(False)
        torch.backends.fp32_precision = "tf32"
        assert self.precisions() == {"ieee"}

    def test_leaves_the_cpu_alone(self):
        mkldnn = torch.backends.mkldnn
        before = mkldnn.matmul.fp32_precision, mkldnn.conv.fp32_precision
        pin_tf32(True)
        assert (mkldnn.matmul.fp32_precision, mkldnn.conv.fp32_precision) == before

    def test_is_off_by_default_and_of_float32_alone(self):
        assert TrainingSettings().tf32 is False
        with pytest.raises(ValidationError, match=r"no effect on float64; set dtype = 'float32'"):
            TrainingSettings(tf32=True, dtype="float64")


@pytest.mark.parametrize(
    ("device", "settings", "expected"),
    [
        ("cpu", {}, "channels_last"),
        ("cpu", {"dtype": "float64"}, "channels_last"),
        ("cpu", {"memory_format": "contiguous"}, "contiguous"),
        ("cuda:0", {}, "contiguous"),
        ("cuda", {"dtype": "float64"}, "contiguous"),
        ("cuda:1", {"tf32": True}, "channels_last"),
        ("cuda:0", {"memory_format": "channels_last"}, "channels_last"),
        ("cuda:0", {"memory_format": "contiguous", "tf32": True}, "contiguous"),
    ],
)
def test_the_memory_format_suits_the_device(device, settings, expected):
    assert TrainingSettings(**settings).memory_format_on(device) == expected


@pytest.mark.parametrize(
    ("device", "deterministic", "words"),
    [
        ("cpu", False, "bit for bit (CPU)"),
        ("cpu", True, "bit for bit (CPU)"),
        ("cuda", True, "deterministic algorithms (CUDA)"),
        ("cuda:1", True, "deterministic algorithms (CUDA)"),
        ("cuda:0", False, "not promised (CUDA)"),
    ],
)
def test_what_holds(device, deterministic, words):
    assert repeatability(device, deterministic) == words


def test_the_setting():
    assert TrainingSettings().deterministic is False
    assert TrainingSettings(deterministic=True).deterministic is True
    with pytest.raises(ValidationError, match="deterministic"):
        TrainingSettings(deterministic="yes")


def test_a_class_weight_is_finite():
    with pytest.raises(ValidationError, match="finite"):
        TrainingSettings(class_weights={"a": float("inf")})
