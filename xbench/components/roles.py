"""Tell the parameters of a model apart: embeddings, hidden layers and the output layer.

Some optimizers need to know. Muon, for one, is meant for hidden matrices, and leaves embeddings, the output
layer and vectors to another method.

This module imports no torch, as specs import it.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, get_args

from xbench.errors import XbenchError
from xbench.text import quote_some

if TYPE_CHECKING:
    from torch import nn

Role = Literal["embedding", "hidden", "output"]
ROLES: tuple[Role, ...] = get_args(Role)

# The role of a tensor that has several names, and different roles by them: the first of these.
_BY_PRIORITY: tuple[Role, ...] = ("embedding", "output", "hidden")

# Names of parameters that a message suggests in place of a pattern.
_MAX_SUGGESTED = 3
_MIN_SIMILARITY = 0.3


def check_role_names(roles: Mapping[str, Role]) -> None:
    """Check that declared roles exist.

    Args:
        roles: the role for each pattern of parameter names.

    Raises:
        XbenchError: one of them does not.
    """
    for pattern, role in roles.items():
        if role not in ROLES:
            raise XbenchError(
                f"roles: '{pattern}' has the role {role!r}, which is not one of {quote_some(ROLES)}"
            )


def check_patterns(model: nn.Module, roles: Mapping[str, Role]) -> None:
    """Check that each pattern of declared roles matches a parameter of a model, be it trained or frozen.

    Args:
        roles: the role for each pattern of parameter names.

    Raises:
        XbenchError: a pattern matches none.
    """
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    for pattern in roles:
        if not any(fnmatchcase(name, pattern) for name in names):
            close = difflib.get_close_matches(pattern, names, _MAX_SUGGESTED, _MIN_SIMILARITY)
            raise XbenchError(
                f"roles: '{pattern}' does not match any parameter of the model",
                hint=f"use patterns for names such as {quote_some(close or names[:_MAX_SUGGESTED])}"
                if names
                else "the model has no parameters",
            )


@contextmanager
def watch_last_layer(model: nn.Module) -> Iterator[list[nn.Parameter]]:
    """Find the layer that the forward passes within the context use last: that of the output.

    The order in which layers are registered does not tell, nor do hooks of modules if a function uses a
    matrix directly, such as the embedding's for the output. So this looks at the arguments of all functions
    of torch that return tensors. Functions that are compiled to TorchScript are not seen.

    Returns:
        A list that fills with the model's parameters in the last call of a function that takes one of two
        dimensions or more. Normalisation that comes after the output layer takes none.
    """
    from torch.overrides import TorchFunctionMode

    last: list[nn.Parameter] = []
    parameters = set(model.parameters())

    class Watch(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            kwargs = kwargs or {}
            result = func(*args, **kwargs)
            # Without the check of the result, `x.to(weight.dtype)` would count as a use of the weight.
            if any(True for _ in _list_tensors(result)):
                used = [t for t in _list_tensors((*args, *kwargs.values())) if t in parameters]
                if any(parameter.ndim >= 2 for parameter in used):
                    last[:] = used
            return result

    with Watch():
        yield last


def _list_tensors(values: Any) -> Iterator[Any]:
    """Yield the tensors of a tensor, or of a list or tuple of any depth."""
    from torch import Tensor

    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _list_tensors(value)


def find_roles(
    model: nn.Module, *declared: Mapping[str, Role], last: Sequence[nn.Parameter], prefix: str = ""
) -> dict[str, Role]:
    """Find the role of each trained parameter of a model.

    If a parameter is not declared, its role follows from the modules. The parameters of `nn.Embedding` and
    `nn.EmbeddingBag` are embeddings. The layer that a forward pass uses last is the output, unless its matrix
    is an embedding. All other parameters are hidden.

    A tensor with several names (tied weights) is an embedding if it is one by any of them. If some of its
    names are declared, only these count.

    Args:
        model: a model, or the part of it that is trained.
        declared: roles by pattern of parameter names. The first pattern that matches counts, and those of
            earlier arguments come first.
        last: the parameters that a forward pass uses last (see `watch_last_layer`).
        prefix: comes before the names of a part in the whole model, for which patterns are meant.

    Returns:
        The roles by name in `model`, in the order of `named_parameters()`. Tied weights occur once, by their
        first name.
    """
    from torch import nn

    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(prefix + name)
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)]
    embeddings = {parameter for table in tables for parameter in table.parameters()}
    output = _complete_layer(model, last)
    roles: dict[str, Role] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        found = {role for known in names[parameter] if (role := _match(known, declared)) is not None}
        if not found:
            derived: Role = (
                "embedding" if parameter in embeddings else "output" if parameter in output else "hidden"
            )
            found = {derived}
        roles[name] = next(role for role in _BY_PRIORITY if role in found)
    return roles


def hidden_matrices(
    model: nn.Module, roles: Mapping[str, Role], with_kernels: bool = False
) -> dict[str, nn.Parameter]:
    """Select the matrices of hidden layers.

    Args:
        roles: the roles of the model's trained parameters, by name.
        with_kernels: whether to include parameters of more than two dimensions, such as the kernels of
            convolutions, for an optimizer that flattens them.

    Returns:
        The parameters by name.
    """
    parameters = {name: model.get_parameter(name) for name, role in roles.items() if role == "hidden"}
    return {name: p for name, p in parameters.items() if p.ndim == 2 or (with_kernels and p.ndim > 2)}


def count_by_role(model: nn.Module, roles: Mapping[str, Role]) -> dict[str, int]:
    """Count the trained parameters of a model for each role that occurs, in the order of `ROLES`.

    Args:
        roles: the roles of the model's trained parameters, by name.
    """
    counts: dict[str, int] = {role: 0 for role in ROLES}
    for name, role in roles.items():
        counts[role] += model.get_parameter(name).numel()
    return {role: count for role, count in counts.items() if count}


def _match(name: str, declared: Collection[Mapping[str, Role]]) -> Role | None:
    patterns = (item for roles in declared for item in roles.items())
    return next((role for pattern, role in patterns if fnmatchcase(name, pattern)), None)


def _complete_layer(model: nn.Module, used: Sequence[nn.Parameter]) -> set[nn.Parameter]:
    """Return the parameters of the layer that owns the last matrix of a function's arguments.

    They are the arguments that the layer owns and, if it contains no other layers, its vectors: a bias may be
    added by a function of its own.
    """
    last = [parameter for parameter in used if parameter.ndim >= 2][-1:]
    arguments, layer = set(used), set[Any]()
    for module in model.modules():
        is_leaf = all(name == "parametrizations" for name, _ in module.named_children())
        own = set(module.parameters(recurse=is_leaf))
        if not own.isdisjoint(last):
            layer |= {p for p in own if p in arguments or (is_leaf and p.ndim < 2)}
    return layer
