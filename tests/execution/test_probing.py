"""The settings that a probe says its components had."""

from __future__ import annotations

import pytest

from xbench.capacity.axis import Axis, ScaledSetting
from xbench.execution.probing import keep_fixed
from xbench.training.settings import Choice

WIDTH, DEPTH = (ScaledSetting("model", name, name) for name in ("width", "depth"))
NET = Choice("net", {"width": 32, "depth": 2, "act": "relu"})


@pytest.mark.parametrize(
    ("axes", "kept"),
    [
        ([WIDTH], {"depth", "act"}),
        ([WIDTH, DEPTH], {"width", "depth", "act"}),
        ([Axis.BATCH_SIZE, WIDTH], {"width", "depth", "act"}),
        ([Axis.BATCH_SIZE], {"width", "depth", "act"}),
        ([ScaledSetting("dataset", "width", "width")], {"width", "depth", "act"}),
    ],
)
def test_a_setting_that_only_one_axis_varies_is_kept_for_the_others(axes, kept):
    found = keep_fixed("model", dict.fromkeys(axes, NET))
    assert found.name == "net"
    assert found.params == {key: NET.params[key] for key in kept}


def test_a_history_is_that_of_the_other_axes():
    probed = {
        Axis.BATCH_SIZE: Choice("lbfgs", {"history_size": 30}),
        Axis.HISTORY_SIZE: Choice("lbfgs", {"history_size": 1}),
    }
    assert keep_fixed("optimizer", probed).params == {"history_size": 30}
