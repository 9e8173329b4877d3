"""Train a small network with an optimizer of the family, as xbench does, but in a few milliseconds."""

from __future__ import annotations

import inspect
import io
import random
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from xbench import OptimizerSpec

FACTS = {"num_examples": 64, "total_steps": 60}
SEED = 7


class Network(nn.Module):
    """Two layers with biases, a matrix without one, and a normalisation layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(48, 40)
        self.norm = nn.LayerNorm(40)
        self.hidden = nn.Linear(40, 32, bias=False)
        self.last = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.hidden(torch.relu(self.norm(self.first(x))))))


class KernelNetwork(nn.Module):
    """A convolution, a layer for its output, and a scalar parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3)
        self.hidden = nn.Linear(32, 16)
        self.last = nn.Linear(16, 5)
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        kernels = torch.relu(self.convolution(x.reshape(-1, 3, 4, 4))).flatten(1)
        return self.scale * self.last(torch.relu(self.hidden(kernels)))


class Factors(nn.Module):
    """Two factors of a matrix of rank 4."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(0.1 * torch.randn(4, 48))
        self.b = nn.Parameter(0.1 * torch.randn(5, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.a.T @ self.b.T


class Training:
    """A training run.

    Attributes:
        model: the network.
        optimizer: the optimizer; other parameters than those it is for stay as they are.
        mine: the parameters that the optimizer updates.
        losses: the loss of each step, at its first evaluation.
        evaluations: the number of evaluations.
    """

    def __init__(
        self, spec: OptimizerSpec, settings: Mapping[str, Any] | None = None, network: type = Network
    ):
        seed_everything()
        self.model = network()
        self.mine = [p for p in self.model.parameters() if spec.parameters == "any" or p.ndim == 2]
        factory = spec.load_factory()
        names = list(inspect.signature(factory).parameters)
        known = {**FACTS, "model": self.model}
        told = {name: known[name] for name in names[1:] if name in known}
        first = self.model if names[0] == "model" else self.mine
        self.optimizer = factory(first, **told, **(settings or {}))
        self.losses: list[float] = []
        self.evaluations = 0
        self._spec, self._steps = spec, 0
        seed_everything()
        if hasattr(self.optimizer, "train") and hasattr(self.optimizer, "eval"):
            self.optimizer.train()

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self._steps += 1
            self._batch = make_batch(self._steps)
            self._is_first = True
            self.clear_gradients()
            self.optimizer.step(self)
            self.clear_gradients()

    def __call__(self) -> Tensor:
        assert self._spec.backward != "fused"
        with torch.enable_grad():
            loss = self._evaluate()
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Using backward")  # of a cycle, which `step` breaks
                loss.backward(create_graph=self._spec.backward == "create_graph")
        return loss.detach().double()

    def loss(self) -> Tensor:
        assert self._spec.backward == "fused"
        return self._evaluate()

    def _evaluate(self) -> Tensor:
        self.clear_gradients()
        self.evaluations += 1
        inputs, labels = self._batch
        loss = nn.functional.cross_entropy(self.model(inputs), labels)
        if self._is_first:
            self.losses.append(loss.item())
            self._is_first = False
        return loss

    def clear_gradients(self) -> None:
        for parameter in self.model.parameters():
            parameter.grad = None

    def weights(self) -> Tensor:
        return torch.cat([p.detach().flatten() for p in self.model.parameters()])

    def count_vectors(self) -> float:
        """Return the size of the state, in vectors of the parameters that the optimizer updates."""
        owned = {p.untyped_storage().data_ptr() for p in self.model.parameters()}
        storages = {t.untyped_storage().data_ptr(): t for t in find_tensors(dict(self.optimizer.state))}
        held = [t.untyped_storage().nbytes() for address, t in storages.items() if address not in owned]
        of_vectors = sum(size for size in held if size > 16)  # the others are counters and norms
        return of_vectors / sum(p.numel() * p.element_size() for p in self.mine)

    def save(self) -> bytes:
        file = io.BytesIO()
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save({**state, "torch": torch.get_rng_state(), "steps": self._steps}, file)
        return file.getvalue()

    def load(self, saved: bytes) -> None:
        state = torch.load(io.BytesIO(saved), weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["torch"])
        self._steps = state["steps"]


def seed_everything() -> None:
    torch.manual_seed(SEED)
    random.seed(SEED)
    np.random.seed(SEED)


def make_batch(step: int) -> tuple[Tensor, Tensor]:
    """Make 16 rows for which the largest of the first five inputs is the class."""
    generator = torch.Generator().manual_seed(step % 4)
    rows = torch.randn(16, 48, generator=generator)
    return rows, rows[:, :5].argmax(1)


def find_tensors(value: Any) -> Iterator[Tensor]:
    """Find the tensors in nested containers and in the attributes of objects."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from find_tensors(item)
    elif isinstance(value, list | tuple) or hasattr(value, "maxlen"):
        for item in value:
            yield from find_tensors(item)
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        yield from find_tensors(vars(value))
