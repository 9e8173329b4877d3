"""What a device makes of a cell's settings."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.cell_samples import MACHINE, cell_of
from xbench.planning.cell_checks import find_idle_settings
from xbench.planning.plan import _data_key, make_cells
from xbench.suite.problems import Problems


def cells_of(data, *settings):
    return [cell_of(data, **each).declared for each in settings]


def test_tf32_is_told_to_have_no_effect_on_a_cpu(tiny_data):
    cells = cells_of(tiny_data, {}, {"tf32": True}, {"tf32": True})
    assert find_idle_settings(cells, "cpu") == ("tf32 = true has no effect on a CPU",)
    assert find_idle_settings(cells[:1], "cpu") == ()
    assert find_idle_settings(cells, "cuda:0") == ()


@pytest.mark.parametrize(
    ("device", "settings", "expected"),
    [
        ("cpu", {}, "channels_last"),
        ("cuda:0", {}, "contiguous"),
        ("cuda:0", {"tf32": True}, "channels_last"),
        ("cpu", {"memory_format": "contiguous"}, "contiguous"),
    ],
)
def test_a_job_has_the_memory_format_that_it_runs_with(tiny_data, device, settings, expected):
    sample = cell_of(tiny_data, **settings)
    plan = SimpleNamespace(
        suite=SimpleNamespace(
            problems=Problems("suite.toml", ""), header=SimpleNamespace(checkpoint_interval=60.0)
        ),
        cells=[sample.declared],
        data=[sample.resolved],
        models=[sample.model],
        machine=replace(MACHINE, device=device),
        default_histories={},
        memory_free={},
        import_dirs=(),
        limit_of=lambda cell: None,
        axis_of=lambda place: None,
    )
    (cell,) = make_cells(plan, {_data_key(sample.resolved): tiny_data})
    assert cell.settings.training.memory_format == expected
    assert cell.key.cell_id == replace(sample, machine=plan.machine).key.cell_id  # as it was asked for
