"""What counts as an optimizer's state: all tensors that it reaches and its model does not own."""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from xbench.components.registry import load, registrations
from xbench.training.closure import AccumulatingClosure
from xbench.training.footprint import optimizer_state_bytes, storage_bytes, trained_bytes

VECTOR = 4 * (5 * 3 + 3)


def a_model() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3, affine=False))
    model(torch.ones(2, 5)).sum().backward()
    assert trained_bytes(model) == VECTOR
    return model


def vectors(model: nn.Module) -> list[torch.Tensor]:
    return [torch.zeros_like(parameter) for parameter in model.parameters()]


@dataclass
class Holder:
    content: Any


class Slotted:
    __slots__ = ("content", "never_set")

    def __init__(self, content):
        self.content = content


class SlottedFurther(Slotted):
    __slots__ = ("more",)


@dataclass(slots=True)
class SlottedDataclass:
    content: Any = field(default=None)


class Node(nn.Module):
    def __init__(self, content):
        super().__init__()
        self.buffers_of_its_own = content


class Computed:
    """What its property makes is held by nobody."""

    def __init__(self, content):
        self.content = content

    @property
    def doubled(self):
        raise AssertionError("a property was evaluated")


def state_in(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of the tensors in `optimizer.state`, which is where torch keeps all of them."""

    def tensors(value):
        if isinstance(value, torch.Tensor):
            return [value]
        items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return [tensor for item in items for tensor in tensors(item)]

    return storage_bytes(tensors(list(optimizer.state.values())))


NAMES = [name for name, found in registrations("optimizer").items() if "xbench " in found.distributions[0]]


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("name", NAMES)
def test_torch_keeps_it_in_state_alone(name):
    spec = load("optimizer", name)
    model = nn.Embedding(6, 4, sparse=spec.gradients == "sparse")
    optimizer = spec.load_factory()(list(model.parameters()))

    def closure():
        model.zero_grad()
        loss = model(torch.tensor([1, 3])).square().sum()
        loss.backward()
        return loss.detach().double()

    for _ in range(2):
        optimizer.step(closure)
    assert optimizer_state_bytes(optimizer, model) == state_in(optimizer)
    if name == "adam":
        assert state_in(optimizer) == 2 * trained_bytes(model) + 4  # and a count of its steps


@pytest.mark.parametrize(
    "hold",
    [
        Holder,
        Slotted,
        SlottedFurther,
        SlottedDataclass,
        Node,
        Computed,
        tuple,
        deque,
        set,
        frozenset,
        lambda content: {"nested": [(content,)]},
        lambda content: dict.fromkeys(content, 0),
        lambda content: OrderedDict(enumerate(content)),
        lambda content: defaultdict(list, enumerate(content)),
        lambda content: partial(print, content),
        lambda content: [deque([Slotted({"last": Holder(content)})])],
    ],
)
def test_is_found_wherever_an_attribute_holds_it(hold):
    model = a_model()
    optimizer = torch.optim.SGD(model.parameters())
    assert optimizer_state_bytes(optimizer, model) == 0
    optimizer.held = hold(vectors(model))
    assert optimizer_state_bytes(optimizer, model) == VECTOR


def test_is_found_on_a_tensor_that_a_graph_holds():
    model = a_model()
    optimizer = torch.optim.SGD(model.parameters())
    scale = torch.ones(7, requires_grad=True)
    scale.held = vectors(model)
    optimizer.held = [scale, scale * scale]  # the product's graph has saved the factor
    assert optimizer_state_bytes(optimizer, model) == VECTOR + 2 * 7 * 4


def test_ends_at_what_an_exception_has_passed_through():
    model = a_model()
    optimizer = torch.optim.SGD(model.parameters())

    def fail():
        local = torch.ones(1000)
        raise ValueError(len(local))

    try:
        fail()
    except ValueError as error:
        optimizer.held = error
    assert optimizer_state_bytes(optimizer, model) == 0


def test_is_that_of_a_wrapped_optimizer_too():
    model = a_model()
    base = torch.optim.SGD(model.parameters(), momentum=0.9)
    base.step()
    wrapper = torch.optim.Optimizer(base.param_groups, {"k": 2})
    assert optimizer_state_bytes(wrapper, model) == 0
    wrapper.base = base
    assert optimizer_state_bytes(wrapper, model) == VECTOR
    wrapper.state["slow"] = vectors(model)
    assert optimizer_state_bytes(wrapper, model) == 2 * VECTOR


def test_optimizer_may_be_of_any_class():
    model = a_model()
    assert optimizer_state_bytes(Holder(vectors(model)), model) == VECTOR


def test_averaged_copy_of_the_model_counts_with_its_buffers():
    model = a_model()
    optimizer = torch.optim.SGD(model.parameters())
    optimizer.average = copy.deepcopy(model)
    optimizer.average.zero_grad()
    assert optimizer_state_bytes(optimizer, model) == VECTOR + storage_bytes(model.buffers())


def test_what_the_model_owns_does_not_count():
    model = a_model()
    model[0].remembered = torch.zeros(100)
    optimizer = torch.optim.SGD(model.parameters())
    optimizer.model = model
    optimizer.parameters_again = [parameter.detach() for parameter in model.parameters()]
    optimizer.rows = [parameter.data.view(-1)[:2] for parameter in model.parameters()]
    optimizer.gradients = [parameter.grad for parameter in model.parameters()]
    optimizer.state_of_model = model.state_dict()
    assert optimizer_state_bytes(optimizer, model) == 0


def test_views_of_updated_parameters_do_not_count():
    # torch does not say whether a view that was made under `no_grad` is a leaf once its base has changed.
    model = a_model()
    optimizer = torch.optim.SGD(model.parameters())
    with torch.no_grad():
        optimizer.views = [parameter.view(-1) for parameter in model.parameters()]
        for parameter in model.parameters():
            parameter.add_(1)
    with pytest.raises(RuntimeError, match="view was created in no_grad mode"):
        optimizer.views[0].is_leaf  # noqa: B018
    optimizer.held = vectors(model)
    assert optimizer_state_bytes(optimizer, model) == VECTOR


def test_flat_copy_of_the_gradients_counts():
    model = a_model()
    optimizer = torch.optim.SGD(model.parameters())
    optimizer.flat = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    assert optimizer_state_bytes(optimizer, model) == VECTOR


def test_gradients_that_it_keeps_count_once_the_model_has_dropped_them():
    model = a_model()
    optimizer = torch.optim.SGD(model.parameters())
    optimizer.previous = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    assert optimizer_state_bytes(optimizer, model) == VECTOR


def test_storages_count_once_and_whole():
    model = a_model()
    optimizer = torch.optim.SGD(model.parameters())
    flat = torch.zeros(1000)
    optimizer.views = [flat[:10], flat[10:20].view(2, 5)]
    assert optimizer_state_bytes(optimizer, model) == 4 * 1000


def test_tensors_in_hyperparameters_and_on_parameters_count():
    model = a_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.1))
    assert optimizer_state_bytes(optimizer, model) == 4
    for parameter in model.parameters():
        parameter.moment = torch.zeros_like(parameter)
    assert optimizer_state_bytes(optimizer, model) == 4 + VECTOR


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("make", [torch.sparse_coo_tensor, torch.sparse_csr_tensor, torch.sparse_csc_tensor])
def test_sparse_tensors_count_with_their_indices(make):
    model = a_model()
    optimizer = torch.optim.SGD(model.parameters())
    pointers, indices = torch.tensor([0, 1, 1, 2]), torch.tensor([1, 2])  # in 8 bytes each
    values = torch.ones(2)
    if make is torch.sparse_coo_tensor:
        optimizer.held, expected = make(indices[None], values), 8 * 2 + 4 * 2
    else:
        optimizer.held, expected = make(pointers, indices, values, size=(3, 3)), 8 * 4 + 8 * 2 + 4 * 2
    assert optimizer_state_bytes(optimizer, model) == expected


class Quantised(torch.Tensor):
    """A wrapper, as those of low-bit optimizers are."""

    @staticmethod
    def __new__(cls, codes):
        return torch.Tensor._make_wrapper_subclass(cls, codes.shape, dtype=torch.float32)

    def __init__(self, codes):
        self.codes = codes

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise AssertionError("the tensor was computed with")


def test_wrapped_tensors_count_as_they_are_stored():
    model = a_model()
    optimizer = torch.optim.SGD(model.parameters())
    optimizer.state["moment"] = Quantised(torch.zeros(18, dtype=torch.uint8))
    optimizer.elsewhere = torch.empty(10**6, device="meta")
    assert optimizer_state_bytes(optimizer, model) == 18


def test_cycles_and_long_chains_end():
    model = a_model()
    optimizer = torch.optim.SGD(model.parameters())
    chain: list[Any] = [optimizer]
    for tensor in [*vectors(model), *[None] * 50_000]:
        chain = [chain, tensor]
    optimizer.chain = chain
    assert optimizer_state_bytes(optimizer, model) == VECTOR


def test_batch_that_a_kept_closure_holds_does_not_count():
    model = a_model()
    optimizer = torch.optim.SGD(model.parameters())
    optimizer.closure = AccumulatingClosure(model, Holder(torch.zeros(1000)), Holder(None), None, 0)
    optimizer.function = lambda: model
    assert optimizer_state_bytes(optimizer, model) == 0
