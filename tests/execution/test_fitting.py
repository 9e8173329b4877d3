"""What errors of a probe mean for a cell that may be adapted: another axis is tried, or it does not run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.cell_samples import cell_of
from xbench.capacity.axes import Axis
from xbench.capacity.probe import Capacity
from xbench.errors import DependentExamples, FixedSize, Unsupported, XbenchError
from xbench.execution import size_search
from xbench.execution.fitting import fit_cells


class Nobody:
    """Hears nothing, and adds no features."""

    def __getattr__(self, name):
        return lambda *args: args[0]


@pytest.fixture
def fit(tiny_data, tmp_path, monkeypatch):
    """`fit(micro_batch=error)`: fit a cell whose probes raise these errors; also return the probed axes."""
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path))

    def fit(**errors):
        probed = []

        def find_capacity(workload, limits, **options):
            probed.append(workload.axis)
            if error := errors.get(workload.axis.setting):
                raise error
            return Capacity(options["highest"], None, 1, (), 0.0)

        monkeypatch.setattr(size_search, "find_capacity", find_capacity)
        cell = cell_of(tiny_data, batch_size="full")
        declared = replace(cell.declared, adapt=("micro_batch", "train_size"))
        memory = replace(cell.memory, limit_bytes=1 << 30)
        (fitted,) = fit_cells([replace(cell, declared=declared, memory=memory)], Nobody(), Nobody())
        return fitted, probed

    return fit


@pytest.mark.parametrize("kind", [FixedSize, DependentExamples])
def test_another_axis_is_tried_if_a_size_is_fixed(fit, kind):
    cell, probed = fit(micro_batch=kind("no micro-batches"))
    assert probed == [Axis.MICRO_BATCH, Axis.TRAIN_SIZE]
    assert cell.skip is None
    assert cell.adapt_order == (Axis.TRAIN_SIZE,)


@pytest.mark.parametrize(("kind", "status"), [(XbenchError, "error"), (Unsupported, "skipped")])
def test_any_other_mistake_ends_the_cell_before_it_runs(fit, kind, status):
    cell, probed = fit(micro_batch=kind("its weights cannot be restored"))
    assert probed == [Axis.MICRO_BATCH]
    assert (cell.skip.status, cell.skip.reason) == (status, "its weights cannot be restored")
