"""A folder of images and a cache of its own for each test."""

from __future__ import annotations

import pytest

from tests.data.raw_images import Images


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def images(cache, tmp_path):
    return Images(tmp_path / "files")
