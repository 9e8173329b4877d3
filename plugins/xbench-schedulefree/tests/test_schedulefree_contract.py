"""Conformance of a few members, one of each kind, to the contract of xbench."""

from __future__ import annotations

import pytest

pytest.importorskip("schedulefree")
pytest.importorskip("xbench_schedulefree")

from xbench.testing import conformance

import xbench_schedulefree

pytestmark = pytest.mark.plugin

test_adamw = conformance("optimizer", xbench_schedulefree.get_spec("AdamWScheduleFree"))
test_wrapper = conformance("optimizer", xbench_schedulefree.get_spec("ScheduleFreeWrapper-RMSprop"))
