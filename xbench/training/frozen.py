"""Split a model into a frozen backbone and a trained head.

The head is one submodule that comes last. The backbone gives the same output for an image every time, so that
it need be computed only once (as the features of transfer learning: Donahue et al. 2014, "DeCAF",
arXiv:1310.1531).

A model need not declare them: the head is found by its parameters and its input by a hook. Running both parts
checks that together they are the whole model.
"""

from __future__ import annotations

from itertools import takewhile
from typing import Any

import torch
from torch import nn

from xbench.errors import XbenchError
from xbench.training.rounding import same_but_for_rounding

# Within this share of the largest value, outputs are the same but for rounding, which depends on how many
# examples are together.
_ROUNDING = 1e-3


def set_training(model: nn.Module) -> None:
    """Training mode, but for what is frozen: its normalisation keeps its statistics, and it drops nothing."""
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()


def trained_part(model: nn.Module) -> tuple[str, nn.Module]:
    """The submodule that holds every trained parameter, and its name; the model itself, named "", where no
    submodule does. Of several within each other it is the outermost that holds nothing frozen, so that what
    has no parameters (dropout) stays with the layer behind it.

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
    """The frozen part of a model: from images to the input of its head.

    Args:
        model: one whose head is not the whole model.
    """

    def __init__(self, model: nn.Module):
        self._model = model
        self.name, self.head = trained_part(model)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Features (n, ...) of images (n, channels, height, width).

        Raises:
            XbenchError: the input of the head is not one tensor with a row for each image.
        """
        hook = self.head.register_forward_pre_hook(_stop, with_kwargs=True)
        try:
            self._model(images)
        except _Reached as reached:
            given = reached.given
        else:
            raise XbenchError(f"a forward pass does not come through '{self.name}'")
        finally:
            hook.remove()
        is_one = len(given) == 1 and isinstance(given[0], torch.Tensor)
        if not is_one or given[0].ndim < 2 or len(given[0]) != len(images):
            raise XbenchError(f"'{self.name}' is not given one tensor with a row for each image")
        return given[0]

    def state(self) -> dict[str, torch.Tensor]:
        """All parameters and buffers that features may depend on."""
        head = f"{self.name}."
        named = [*self._model.named_parameters(), *self._model.named_buffers()]
        return {key: value for key, value in named if not key.startswith(head)}


class _Reached(Exception):
    """Ends a forward pass where that is enough."""

    def __init__(self, given: tuple[Any, ...]):
        self.given = given


def _stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    raise _Reached((*args, *kwargs.values()))


def obstacle(model: nn.Module, images: torch.Tensor) -> str | None:
    """Why the features of a model cannot be computed once for all, in one line; None if they can.

    It may move the model's running statistics.

    Args:
        model: as `set_training` leaves it, with some of its parameters frozen.
        images: three or more.
    """
    name, head = trained_part(model)
    if head is model:
        return "what is trained does not lie in one part of the model"
    backbone = Backbone(model)
    try:
        with torch.no_grad():
            before = _generator_states()
            together = backbone(images)
            draws = not all(map(torch.equal, before, _generator_states()))
            apart = backbone(images[:-1])
            torch.manual_seed(3)
            whole = model(images)
            torch.manual_seed(3)
            in_two = head(together)
            model.eval()
            evaluated = backbone(images)
            set_training(model)
    except XbenchError as error:
        return error.message
    if draws or not same_but_for_rounding(together[:-1], apart, _ROUNDING):
        return (
            f"what is frozen in front of '{name}' gives another output each time{_suspects(backbone, model)}"
        )
    if not same_but_for_rounding(together, evaluated, _ROUNDING):
        return f"what is frozen in front of '{name}' gives another output in evaluation than in training"
    if not same_but_for_rounding(whole, in_two, _ROUNDING):
        return f"'{name}' is not the last part of the model"
    return None


def _generator_states() -> list[torch.Tensor]:
    """Of torch's generators, which move with everything that is drawn from them."""
    on_devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *on_devices]


def _suspects(backbone: Backbone, model: nn.Module) -> str:
    """Parts in front that are in training mode and have no children: among them is what draws or counts."""
    head = set(backbone.head.modules())
    kinds = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase, nn.RReLU)
    found = [
        f"{name} ({type(module).__name__})"
        for name, module in model.named_modules()
        if module.training and module not in head and isinstance(module, kinds)
    ]
    return f", as {', '.join(found)} is in training mode" if found else ""
