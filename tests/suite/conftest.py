"""Suites in a folder of their own, and what is known of the components that they name."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from xbench.components.annotations import type_of_default
from xbench.components.registry import describe_unknown_name, write_listing_hint
from xbench.components.settings import Settings
from xbench.errors import XbenchError
from xbench.suite.grid import collect_components, expand
from xbench.suite.reader import read_suite


def declared(required=(), is_open=False, **defaults):
    """Settings whose types are those of their defaults."""
    types = {key: type_of_default(default) for key, default in defaults.items()}
    return Settings(defaults, required, is_open, types=types)


KNOWN = {
    ("model", "net"): declared(width=8, act="relu"),
    ("model", "deep"): declared(depth=3),
    ("model", "mine:build"): declared(width=8),
    ("model", "mine:problem"): declared(width=8),
    ("dataset", "pictures"): declared(root=None, image_size=64, flip=False),
    ("dataset", "made-up"): declared(seed=0),
    ("dataset", "mine:problem"): declared(rows=100, noise=0.0),
    ("optimizer", "sgd"): declared(lr=1e-3, momentum=0.0, nesterov=False),
    ("optimizer", "adam"): declared(lr=1e-3, betas=(0.9, 0.999), eps=1e-8),
    ("optimizer", "needy"): declared(required=("rho",), lr=1e-3),
    ("optimizer", "open"): declared(is_open=True, lr=1e-3),
    ("optimizer", "blocks"): declared(sizes=((1, 2), (3, 4))),
    # Its own number of inner epochs collides with a training setting.
    ("optimizer", "inner"): declared(lr=1e-3, epochs=1),
}

# Lines 1 to 6 of a suite; tests add what they are about from line 7 on.
HEAD = """\
[suite]
name = "short"
[[experiment]]
name = "exp"
model = "net"
dataset = "pictures"
"""


def known_of(kind, name):
    return KNOWN.get((kind, name)) or XbenchError(
        describe_unknown_name(kind, name), hint=write_listing_hint(kind)
    )


@pytest.fixture
def head():
    return HEAD


@pytest.fixture
def read(tmp_path, monkeypatch):
    """`read(text, *overrides, only=())`: a suite of that text, named `my.toml` in messages."""
    monkeypatch.chdir(tmp_path)

    def read_text(text, *overrides, only=()):
        Path("my.toml").write_text(dedent(text), encoding="utf-8")
        return read_suite(Path("my.toml"), overrides, only)

    return read_text


@pytest.fixture
def cells(read):
    """`cells(text, ...)`: all cells of a suite that has nothing wrong."""

    def expanded(text, *overrides, only=()):
        suite = read(text, *overrides, only=only)
        expansion = expand(suite, {key: known_of(*key) for key in collect_components(suite)})
        suite.problems.raise_if_any()
        return expansion.cells

    return expanded


@pytest.fixture
def error(cells):
    """`error(text, ...)`: what is wrong with a suite."""

    def raised(text, *overrides, only=()):
        with pytest.raises(XbenchError) as caught:
            cells(text, *overrides, only=only)
        return caught.value

    return raised


@pytest.fixture
def complaints(error):
    """`complaints(text, ...)`: what is wrong with a suite, a line each."""

    def lines(text, *overrides, only=()):
        return error(text, *overrides, only=only).message.splitlines()

    return lines
