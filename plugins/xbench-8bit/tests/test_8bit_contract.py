"""Conformance of a few members, one of each kind, to the contract of xbench."""

from __future__ import annotations

import pytest

pytest.importorskip("bitsandbytes")
pytest.importorskip("torchao")
pytest.importorskip("xbench_8bit")

from xbench.testing import conformance

import xbench_8bit

pytestmark = pytest.mark.plugin

test_torchao = conformance("optimizer", xbench_8bit.TORCHAO.member("AdamW8bit"))
test_bitsandbytes = conformance("optimizer", xbench_8bit.BITSANDBYTES.member("Lion8bit"))
