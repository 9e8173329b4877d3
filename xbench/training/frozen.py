"""Split a model into a frozen backbone and a trained head.

The head is one submodule that comes last. The backbone always gives the same output for an example (an image
or a row), so it needs to be computed only once (as the features of transfer learning: Donahue et al. 2014,
"DeCAF", arXiv:1310.1531).

A model need not declare its parts: the head is found by its parameters, and its input by a hook. Running both
parts shows whether they make up the whole model.
"""

from __future__ import annotations

from itertools import takewhile
from typing import Any

import torch
from torch import nn

from xbench.components.tracebacks import describe_error
from xbench.errors import XbenchError
from xbench.memory.exhaustion import raise_if_exhausted
from xbench.training.nested import list_tensors
from xbench.training.rounding import equal_up_to_rounding

# Outputs are equal up to rounding if they differ by no more than this share of the largest value. Rounding
# depends on the number of examples in a batch.
_ROUNDING = 1e-3


def set_training(model: nn.Module) -> None:
    """Set training mode, except for frozen modules.

    Their normalisation does not update its statistics, and their dropout stays off.
    """
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()


def find_trained_part(model: nn.Module) -> tuple[str, nn.Module]:
    """Find the submodule that holds every trained parameter.

    Of several nested submodules, the outermost one without frozen parameters is taken, so that layers without
    parameters (dropout) stay with the layer behind them.

    Returns:
        The submodule's name and the submodule; "" and the model itself if no submodule holds them all.

    Raises:
        XbenchError: the model has nothing to train.
    """
    # A parameter that two submodules share is trained in both.
    trained = [name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad]
    if not trained:
        raise XbenchError("all of the model's parameters are frozen: there is nothing to train")
    levels = zip(*(name.split(".")[:-1] for name in trained), strict=False)
    shared = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels)]
    around = [".".join(shared[:depth]) for depth in range(len(shared) + 1)]
    whole = (name for name in around if all(p.requires_grad for p in model.get_submodule(name).parameters()))
    name = next(whole, around[-1])
    return name, model.get_submodule(name)


class Backbone:
    """Frozen part of a model: from the model's inputs to those of its head.

    Args:
        model: a model whose head is not the whole model.
    """

    def __init__(self, model: nn.Module):
        self._model = model
        self.name, self.head = find_trained_part(model)

    @torch.no_grad()
    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute the features (n, ...) of the model's inputs (n, ...).

        Raises:
            XbenchError: the input of the head is not one floating-point tensor with a row for each example.
        """
        hook = self.head.register_forward_pre_hook(_stop_at_head, with_kwargs=True)
        try:
            self._model(inputs)
        except _HeadReached as reached:
            features = reached.inputs
        else:
            raise XbenchError(f"a forward pass does not call '{self.name}'")
        finally:
            hook.remove()
        is_one = len(features) == 1 and isinstance(features[0], torch.Tensor)
        if not is_one or features[0].ndim < 2 or len(features[0]) != len(inputs):
            raise XbenchError(f"the input of '{self.name}' is not one tensor with a row for each example")
        if not features[0].is_floating_point():
            raise XbenchError(f"the input of '{self.name}' is not of a floating-point dtype")
        return features[0]

    def state(self) -> dict[str, torch.Tensor]:
        """Return all parameters and buffers that features may depend on."""
        head = f"{self.name}."
        named = [*self._model.named_parameters(), *self._model.named_buffers()]
        return {key: value for key, value in named if not key.startswith(head)}


class _HeadReached(Exception):
    """Raised to end a forward pass at the head."""

    def __init__(self, inputs: tuple[Any, ...]):
        self.inputs = inputs


def _stop_at_head(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    raise _HeadReached((*args, *kwargs.values()))


def find_obstacle(model: nn.Module, inputs: torch.Tensor) -> str | None:
    """Explain in one line why a model's features cannot be computed just once; return None if they can.

    The model's running statistics may change.

    Args:
        model: a model with some frozen parameters, as `set_training` leaves it.
        inputs: inputs of the model of at least three examples.

    Raises:
        MemoryError, RuntimeError: memory ran out. Other exceptions are those of the model in training mode.
    """
    name, head = find_trained_part(model)
    if head is model:
        return "the trained parameters are not in one part of the model"
    backbone = Backbone(model)
    try:
        before = _read_generator_states()
        features = backbone(inputs)
        is_random = not all(map(torch.equal, before, _read_generator_states()))
        fewer = backbone(inputs[:-1])
        model.eval()
        evaluated = backbone(inputs)
    except XbenchError as error:
        return error.message
    except Exception as error:  # a model may raise anything
        raise_if_exhausted(error)
        return f"the frozen part before '{name}' fails without gradients: {describe_error(error)}"
    finally:
        set_training(model)
    # A head may need gradients in training mode, for example to penalise them.
    torch.manual_seed(3)
    whole = model(inputs)
    torch.manual_seed(3)
    in_parts = head(features)
    if is_random or not equal_up_to_rounding(features[:-1], fewer, _ROUNDING):
        varies = f"the frozen part before '{name}' does not always give the same output for an example"
        return varies + _name_suspects(backbone, model)
    if not equal_up_to_rounding(features, evaluated, _ROUNDING):
        return f"the frozen part before '{name}' gives different outputs in evaluation and in training"
    if not are_equal(whole, in_parts):
        return f"'{name}' is not the last part of the model"
    return None


def are_equal(one: Any, other: Any) -> bool:
    """Return whether nested tensors are equal up to rounding, which may depend on the size of a batch."""
    ones, others = list(list_tensors(one)), list(list_tensors(other))
    return len(ones) == len(others) and all(
        equal_up_to_rounding(*pair, _ROUNDING) for pair in zip(ones, others, strict=True)
    )


def _read_generator_states() -> list[torch.Tensor]:
    """Return the states of torch's generators, which change with every draw."""
    on_devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *on_devices]


def _name_suspects(backbone: Backbone, model: nn.Module) -> str:
    """Name the backbone's dropout and normalisation layers in training mode, which are the usual cause."""
    head = set(backbone.head.modules())
    kinds = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase, nn.RReLU)
    found = [
        f"{name} ({type(module).__name__})"
        for name, module in model.named_modules()
        if module.training and module not in head and isinstance(module, kinds)
    ]
    return f"; in training mode: {', '.join(found)}" if found else ""
