"""Check a plugin in its own tests.

With pytest, one line makes a test of each check:

    from xbench.testing import conformance

    test_contract = conformance("optimizer", "my_package:SPEC")

`check_optimizer`, `check_model` and `check_dataset` do the same in one call, with any test runner. The checks
are those of `xbench plugins check`, and run in child processes.

`start_training` trains an optimizer on a few rows, step by step and in the process of the test.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xbench.components.code_files import ImportDirs
from xbench.components.registered import pack, register_dataset, register_model, register_optimizer
from xbench.components.registry import Kind
from xbench.components.specs import OptimizerSpec, Spec
from xbench.conformance.checks import CHECKS, Finding, Verdict
from xbench.conformance.common import Subject
from xbench.conformance.run import check
from xbench.errors import XbenchError

if TYPE_CHECKING:
    from torch import nn

    from xbench.conformance.small_training import SmallTraining

__all__ = [
    "Finding",
    "Verdict",
    "check_dataset",
    "check_model",
    "check_optimizer",
    "conformance",
    "start_training",
]

# A registered name, `module:attribute`, a spec, or a factory.
Component = str | Spec | Callable[..., Any]

_REGISTER: dict[Kind, Callable[[str, Any], None]] = {
    "optimizer": register_optimizer,
    "model": register_model,
    "dataset": register_dataset,
}


def check_optimizer(
    component: Component, settings: Mapping[str, Any] | None = None, checks: Sequence[str] = ()
) -> list[Finding]:
    """Check that an optimizer keeps to the plugin contract.

    Args:
        component: a registered name, `"module:attribute"`, an `OptimizerSpec`, or a factory.
        settings: settings of the optimizer; others keep their defaults.
        checks: names of the checks to run; all by default.

    Returns:
        A finding for each check: what passed, what does not apply, and facts such as closure calls per step.

    Raises:
        AssertionError: a check failed. The message names all that did.
        XbenchError: the component, a setting or a check is unknown.
    """
    return _assert_passed(_check("optimizer", component, settings, checks))


def check_model(
    component: Component,
    settings: Mapping[str, Any] | None = None,
    checks: Sequence[str] = (),
    dataset: str = "",
) -> list[Finding]:
    """Check that a model keeps to the plugin contract, as `check_optimizer` does an optimizer.

    Args:
        component: a registered name, `"module:attribute"`, a `ModelSpec`, or a factory.
        settings: settings of the model; others keep their defaults.
        checks: names of the checks to run; all by default.
        dataset: the dataset to try it on; by default, images and rows of several kinds are tried.
    """
    return _assert_passed(_check("model", component, settings, checks, dataset))


def check_dataset(
    component: Component,
    settings: Mapping[str, Any] | None = None,
    checks: Sequence[str] = (),
    model: str = "",
) -> list[Finding]:
    """Check that a dataset keeps to the plugin contract, as `check_optimizer` does an optimizer.

    Args:
        component: a registered name, `"module:attribute"`, a `DatasetSpec`, or a factory.
        settings: settings of the dataset; others keep their defaults.
        checks: names of the checks to run; all by default.
        model: the model to try its task with; by default, built-in models are tried.
    """
    return _assert_passed(_check("dataset", component, settings, checks, model))


def conformance(
    kind: Kind, component: Component, settings: Mapping[str, Any] | None = None, partner: str = ""
) -> Callable[[str], None]:
    """Make a parametrised pytest function, to be assigned to a name that begins with `test_`.

    It has one test for each check: a failed check fails, and one that does not apply is skipped.

    Args:
        kind: `"optimizer"`, `"model"` or `"dataset"`.
        component: a registered name, `"module:attribute"`, a spec, or a factory.
        settings: settings of the component; others keep their defaults.
        partner: the dataset to try a model on, or the model to try a dataset's task with.

    Raises:
        ImportError: pytest is not installed.
    """
    import pytest

    @cache
    def find_all() -> dict[str, Finding]:
        return {finding.check: finding for finding in _check(kind, component, settings, (), partner)}

    @pytest.mark.parametrize("check", CHECKS[kind])
    def test_contract(check: str) -> None:
        finding = find_all()[check]
        if finding.outcome == "not applicable":
            pytest.skip(finding.text)
        if finding.outcome == "fail":
            pytest.fail(str(finding), pytrace=False)

    return test_contract


def start_training(
    spec: OptimizerSpec,
    settings: Mapping[str, Any] | None = None,
    network: Callable[[], nn.Module] | None = None,
    **training: Any,
) -> SmallTraining:
    """Start a training run on a few rows in this process, with the code that trains a cell.

    Args:
        spec: the optimizer's spec.
        settings: its settings; others keep their defaults.
        network: returns the network; see `SmallTraining`.
        training: settings of the training, such as `dtype="bfloat16"`.

    Returns:
        The run, before its first step. `step(times)` takes steps and returns their losses, `evaluate()`
        returns the loss at the end, and `optimizer`, `model` and `parameters` can be looked at.

    Raises:
        Unsupported: the optimizer cannot train this network.
        Exception: of any type, raised by the factory.
    """
    from xbench.conformance.small_training import SmallTraining  # which loads torch

    return SmallTraining(spec, settings, network, **training)


def _assert_passed(findings: list[Finding]) -> list[Finding]:
    failures = [str(finding) for finding in findings if finding.outcome == "fail"]
    if failures:
        raise AssertionError("\n".join(failures))
    return findings


def _check(
    kind: Kind,
    component: Component,
    settings: Mapping[str, Any] | None,
    checks: Sequence[str],
    partner: str = "",
) -> list[Finding]:
    params = dict(settings or {})
    if isinstance(component, str):
        folders = (_find_folder(component),) if ":" in component else ()
        return check(Subject(kind, component, params, ImportDirs(folders), partner), checks)
    name = f"{getattr(component, '__name__', kind)} under test"
    _REGISTER[kind](name, component)
    with tempfile.TemporaryDirectory(prefix="xbench-test-") as folder:
        dirs = ImportDirs(packed=pack([(kind, name)], Path(folder)))
        return check(Subject(kind, name, params, dirs, partner), checks)


def _find_folder(reference: str) -> str:
    """Find the folder that the top-level module of a `module:attribute` is imported from."""
    top = reference.partition(":")[0].partition(".")[0]
    found = importlib.util.find_spec(top) if top.isidentifier() else None
    if found is None or found.origin is None:
        raise XbenchError(
            f"'{reference}' cannot be imported: no module named '{top}'",
            hint="install the package, or add its folder to pytest's `pythonpath`",
        )
    origin = Path(found.origin)
    return str((origin.parent.parent if found.submodule_search_locations else origin.parent).resolve())
