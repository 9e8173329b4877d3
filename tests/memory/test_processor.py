"""The processor has a name, whatever the system tells of it."""

from __future__ import annotations

import builtins
import io
import platform

import pytest

from xbench.memory.processor import processor_name

CPUINFO = (
    "processor\t: 0\nmodel name\t: Some: CPU @ 2.00GHz\n\nprocessor\t: 1\nmodel name\t: Some: CPU @ 2.00GHz\n"
)


@pytest.fixture
def cpuinfo(monkeypatch):
    """What the system tells, in place of what it does."""
    told = {}
    monkeypatch.setattr(builtins, "open", lambda path: io.StringIO(told[path]))
    return told


def test_the_model(cpuinfo):
    cpuinfo["/proc/cpuinfo"] = CPUINFO
    assert processor_name() == "Some: CPU @ 2.00GHz"


@pytest.mark.parametrize(("processor", "name"), [("arm", "arm"), ("", "aarch64")])
def test_where_no_model_is_told(cpuinfo, monkeypatch, processor, name):
    cpuinfo["/proc/cpuinfo"] = "processor\t: 0\nBogoMIPS\t: 50.00\n"
    monkeypatch.setattr(platform, "processor", lambda: processor)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert processor_name() == name
