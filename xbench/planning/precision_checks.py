"""Check before a run that cells can be trained in the precision, and compiled, as their suite asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from xbench.errors import XbenchError
from xbench.isolation.ask import ask
from xbench.isolation.run import Timeouts
from xbench.planning.resolution import ResolvedData
from xbench.suite.cells import Cell
from xbench.suite.problems import Problems
from xbench.training.settings import Choice

# Compiling takes some seconds, and much longer on a busy machine.
_COMPILER_TIMEOUT_S = 300.0


def check_precision(cells: Sequence[Cell], resolved: dict[str, ResolvedData], problems: Problems) -> None:
    """Check that autocast and compiled models are right for the tasks of the cells' data."""
    for cell in cells:
        data = resolved.get(repr(cell.dataset))
        if data is not None:
            for key, reason in _find_obstacles(cell, data):
                problems.add(cell.where(key), reason, hint=f"leave out {key}")


def _find_obstacles(cell: Cell, data: ResolvedData) -> Iterator[tuple[str, str]]:
    """Yield each setting that does not suit a task, with the reason."""
    training, task, name = cell.training, data.facts.task, data.choice.name
    if task.differentiates and training.autocast != "off":
        yield (
            "autocast",
            f"the task of {name} takes derivatives with respect to inputs, and these backward passes should "
            "not run under autocast",
        )
    if task.differentiates and training.compile:
        yield (
            "compile",
            f"the task of {name} takes derivatives with respect to inputs, and torch.compile cannot "
            "differentiate a compiled backward pass",
        )
    elif task.has_terms and training.compile:
        yield (
            "compile",
            f"the task of {name} has several terms, whose numbers of rows differ between batches, so the "
            "model would be compiled again during training",
        )


def check_optimizers_precision(cells: Sequence[Cell], import_dirs: Sequence[str], problems: Problems) -> None:
    """Check that autocast, bfloat16 and compiled models are right for the cells' optimizers."""
    choices = {repr(cell.optimizer): cell.optimizer for cell in cells if _is_special(cell)}
    if not choices:
        return
    needs = dict(zip(choices, ask(describe_needs, list(choices.values()), import_dirs), strict=True))
    for cell in filter(_is_special, cells):
        compares_losses, differentiates_gradients = needs[repr(cell.optimizer)]
        training, name = cell.training, cell.optimizer.name
        if compares_losses and training.rounds_to_bfloat16:
            key = "dtype" if training.dtype == "bfloat16" else "autocast"
            problems.add(
                cell.where(key),
                f"{name} searches along a line by comparing losses, and those of bfloat16 change in steps: "
                f"with {key} = 'bfloat16' it would follow rounding",
                hint=f"leave out {key} for {name}, or its line search",
            )
        if differentiates_gradients and training.compile:
            problems.add(
                cell.where("compile"),
                f"{name} differentiates gradients, and torch.compile cannot differentiate a compiled "
                "backward pass",
                hint=f"set compile = false for {name}",
            )


def _is_special(cell: Cell) -> bool:
    return cell.training.compile or cell.training.rounds_to_bfloat16


def describe_needs(
    send: Callable[[Any], None], choices: Sequence[Choice], import_dirs: Sequence[str]
) -> list[tuple[bool, bool]]:
    """Say of each optimizer whether it compares losses, and whether it differentiates gradients.

    The optimizer of the parameters that one leaves counts, too. This runs in a child process.
    """
    from xbench.training.optimizer import load_optimizer

    needs = []
    for choice in choices:
        try:
            optimizer = load_optimizer(choice, import_dirs)
        except XbenchError:  # which other checks report
            needs.append((False, False))
            continue
        parts = [optimizer, *([optimizer.rest] if optimizer.rest else [])]
        compares = any(part.compares_losses for part in parts)
        needs.append((compares, any(part.spec.backward == "create_graph" for part in parts)))
    return needs


def check_compiler(cells: Sequence[Cell], device: str, problems: Problems) -> None:
    """Compile a small model if a cell is to be compiled, and add a mistake if that fails."""
    compiled = [cell for cell in cells if cell.training.compile]
    if not compiled:
        return
    try:
        ask(try_compiler, device, timeouts=Timeouts(timeout_s=_COMPILER_TIMEOUT_S))
    except XbenchError as error:
        for cell in compiled:
            problems.add(cell.where("compile"), f"compile = true: {error.message}", error.hint)


def try_compiler(send: Callable[[Any], None], device: str) -> None:
    """Compile and run a model of a single operation. This runs in a child process.

    Raises:
        XbenchError: this machine cannot compile.
    """
    import torch

    from xbench.components.tracebacks import describe_error
    from xbench.training.compilation import compile_model

    model = torch.nn.Tanh()
    compile_model(model)
    try:
        model(torch.ones(64, device=device))
    except Exception as error:
        raise XbenchError(
            f"this machine cannot compile: {describe_error(getattr(error, 'inner_exception', error))}",
            hint="install a C++ compiler (such as g++) and Python's header files, set CXX to the compiler, "
            "or leave out compile",
        ) from error
