"""Conformance of a few members, one of each kind, to the contract of xbench."""

from __future__ import annotations

import pytest

pytest.importorskip("heavyball")
pytest.importorskip("xbench_heavyball")

from xbench.testing import conformance

import xbench_heavyball

pytestmark = pytest.mark.plugin

test_soap = conformance("optimizer", xbench_heavyball.get_spec("SOAP"))
test_second_derivatives = conformance("optimizer", xbench_heavyball.get_spec("PSGDKron-Hessian"))
test_wrapper = conformance("optimizer", xbench_heavyball.get_spec("SAMWrapper-SFAdamW"))
