"""A model whose front is frozen: what is trained lies in one submodule that comes last, and what is in front
of it gives the same output for an image every time, so that it need be computed only once (as the features
of transfer learning: Donahue et al. 2014, "DeCAF", arXiv:1310.1531).

Nothing is asked of a model for that: the trained submodule is found by its parameters, its input by a hook,
and that it stands for the whole model is checked by running both.
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


class Front:
    """The frozen part of a model: from images to what its trained part is given.

    Args:
        model: with a trained part other than itself.
    """

    def __init__(self, model: nn.Module):
        self._model = model
        self.name, self.behind = trained_part(model)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Features (n, ...) of images (n, channels, height, width).

        Raises:
            XbenchError: the trained part is not given one tensor with a row for each image.
        """
        hook = self.behind.register_forward_pre_hook(_stop, with_kwargs=True)
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
        behind = f"{self.name}."
        named = [*self._model.named_parameters(), *self._model.named_buffers()]
        return {key: value for key, value in named if not key.startswith(behind)}


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
    name, behind = trained_part(model)
    if behind is model:
        return "what is trained does not lie in one part of the model"
    front = Front(model)
    try:
        with torch.no_grad():
            before = _generator_states()
            together = front(images)
            draws = not all(map(torch.equal, before, _generator_states()))
            apart = front(images[:-1])
            torch.manual_seed(3)
            whole = model(images)
            torch.manual_seed(3)
            in_two = behind(together)
            model.eval()
            evaluated = front(images)
            set_training(model)
    except XbenchError as error:
        return error.message
    if draws or not same_but_for_rounding(together[:-1], apart, _ROUNDING):
        return f"what is frozen in front of '{name}' gives another output each time{_suspects(front, model)}"
    if not same_but_for_rounding(together, evaluated, _ROUNDING):
        return f"what is frozen in front of '{name}' gives another output in evaluation than in training"
    if not same_but_for_rounding(whole, in_two, _ROUNDING):
        return f"'{name}' is not the last part of the model"
    return None


def _generator_states() -> list[torch.Tensor]:
    """Of torch's generators, which move with everything that is drawn from them."""
    on_devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *on_devices]


def _suspects(front: Front, model: nn.Module) -> str:
    """Parts in front that are in training mode and have no children: among them is what draws or counts."""
    behind = set(front.behind.modules())
    kinds = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase, nn.RReLU)
    found = [
        f"{name} ({type(module).__name__})"
        for name, module in model.named_modules()
        if module.training and module not in behind and isinstance(module, kinds)
    ]
    return f", as {', '.join(found)} is in training mode" if found else ""
