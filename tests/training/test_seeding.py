"""Seeds, and what is asked of torch for results that repeat themselves."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from xbench.isolation.run import call_in_child
from xbench.training.seeding import holds, make_deterministic, seed_everything
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
        before, after, benchmark, warn_only = call_in_child(deterministic_facts)
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
    assert holds(device, deterministic) == words


def test_the_setting():
    assert TrainingSettings().deterministic is False
    assert TrainingSettings(deterministic=True).deterministic is True
    with pytest.raises(ValidationError, match="deterministic"):
        TrainingSettings(deterministic="yes")


def test_a_class_weight_is_finite():
    with pytest.raises(ValidationError, match="finite"):
        TrainingSettings(class_weights={"a": float("inf")})
