"""Register components from Python, for suites that this process runs, and pack them for worker processes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from xbench.components.code_files import PackedComponent
from xbench.components.object_code import NoSource, ObjectCode, identify
from xbench.components.registry import Kind, find, make_spec
from xbench.components.specs import DatasetSpec, ModelSpec, OptimizerSpec, Spec
from xbench.components.tasks import Problem
from xbench.errors import XbenchError
from xbench.text import escape_controls, format_value

_registered: dict[tuple[Kind, str], Spec] = {}


def register_model(name: str, model: ModelSpec | Callable[..., Any]) -> None:
    """Register a model, so that suites which this process runs can name it.

    It is sent to worker processes by value if it is defined in a script or a notebook, and imported there if
    it is defined in a module. Its results are taken over from earlier runs as long as its source, the values
    that it uses and the files of its modules are the same. If the source of a part cannot be found, as of
    code made by `exec`, it is trained again in every run.

    Args:
        name: the name. A second registration replaces the first.
        model: a `ModelSpec`, or a factory: `factory(num_classes, **settings)` returns a `torch.nn.Module`.

    Raises:
        XbenchError: the name is taken by an installed component or is not a name, or the model is neither a
            spec nor a factory.
    """
    _register("model", name, model)


def register_optimizer(name: str, optimizer: OptimizerSpec | Callable[..., Any]) -> None:
    """Register an optimizer, as `register_model` does a model.

    Args:
        name: the name. A second registration replaces the first.
        optimizer: an `OptimizerSpec`, or a factory, such as a class: `factory(params, **settings)`.

    Raises:
        XbenchError: as for `register_model`.
    """
    _register("optimizer", name, optimizer)


def register_dataset(name: str, dataset: DatasetSpec | Callable[..., Any]) -> None:
    """Register a dataset, as `register_model` does a model.

    Args:
        name: the name. A second registration replaces the first.
        dataset: a `DatasetSpec`, or a factory: `factory(**settings)` returns a `RowDataset`, or a
            `Dataset` of images.

    Raises:
        XbenchError: as for `register_model`.
    """
    _register("dataset", name, dataset)


def register_problem(name: str, problem: Problem) -> None:
    """Register a model and a dataset under one name, as `register_model` does a model.

    In a suite, `problem = "NAME"` stands for both.

    Args:
        name: the name. A second registration replaces the first.
        problem: an `xbench.Problem`. It may also name components that were registered from Python.

    Raises:
        XbenchError: as for `register_model`.
    """
    _check_name("problem", name)
    if not isinstance(problem, Problem):
        raise XbenchError(
            f"problem '{escape_controls(name)}' is a {type(problem).__name__}, not an xbench.Problem"
        )
    _register("model", name, _find_registered("model", problem.model) or problem)
    _register("dataset", name, _find_registered("dataset", problem.dataset) or problem)


def pack(wanted: Iterable[tuple[Kind, str]], folder: Path) -> tuple[PackedComponent, ...]:
    """Pickle those of the wanted components that are registered from Python.

    Args:
        wanted: kinds and names.
        folder: where the files go. It must exist as long as worker processes use the components.

    Raises:
        XbenchError: a component cannot be pickled, or the folder of a module that it uses holds too many
            files for a folder of code.
        OSError: a file cannot be written.
    """
    found = {key: _registered[key] for key in wanted if key in _registered}
    return tuple(
        _pack(kind, name, spec, folder / f"{place}.pickle")
        for place, ((kind, name), spec) in enumerate(found.items())
    )


def _check_name(kind: str, name: object) -> None:
    if not isinstance(name, str) or not name.strip() or {":", "/"} & set(name):
        raise XbenchError(
            f"{format_value(name)} cannot be the name of a {kind}",
            hint="choose a text without ':' and '/', which have a meaning in the names of components",
        )


def _register(kind: Kind, name: str, component: Any) -> None:
    _check_name(kind, name)
    taken = find(kind, name)
    if taken is not None:
        raise XbenchError(
            f"{kind} '{escape_controls(name)}' is registered by {' and '.join(taken.distributions)}",
            hint="choose another name",
        )
    _registered[kind, name] = make_spec(kind, component, f"{kind} '{escape_controls(name)}'", "from Python")


def _find_registered(kind: Kind, part: object) -> Spec | None:
    """Return the component that was registered from Python under a name; None for anything else."""
    return _registered.get((kind, part)) if isinstance(part, str) else None


def _pack(kind: Kind, name: str, spec: Spec, path: Path) -> PackedComponent:
    import cloudpickle

    try:
        path.write_bytes(cloudpickle.dumps(spec))
    except OSError:
        raise
    except Exception as error:  # any object may have a method of its own
        raise XbenchError(
            f"{kind} '{name}' cannot be sent to a worker process: {type(error).__name__}: {error}",
            hint="create what cannot be pickled, such as open files and locks, within the factory",
        ) from error
    try:
        code = identify(spec)
    except NoSource:
        code = ObjectCode(uuid.uuid4().hex, ())  # never known again
    return PackedComponent(kind, name, path, code.digest[:16], tuple(map(str, code.places)))
