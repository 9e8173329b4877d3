"""Nothing that a cache holds is ever unpickled: pickles that would leave a mark are put everywhere."""

from __future__ import annotations

import os
import pickle
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data import cache_jobs
from xbench.components.image_dataset import Example
from xbench.components.weights import read_weights
from xbench.data.features import FeatureFile
from xbench.data.fingerprints import are_known, content_hashes
from xbench.errors import XbenchError
from xbench.storage.cache import load, save


class Mark:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def mark(tmp_path) -> Path:
    return tmp_path / "was run"


@pytest.fixture(params=["plain", "array", "torch", "torch, old"])
def planted(request, mark) -> bytes:
    """A file that makes the mark when it is loaded as such files used to be."""
    path = mark.with_name("planted")
    if request.param == "plain":
        path.write_bytes(pickle.dumps(Mark(mark), protocol=2))
    elif request.param == "array":
        with path.open("wb") as file:
            np.save(file, np.array([Mark(mark)], dtype=object), allow_pickle=True)
    else:
        torch.save({"a": Mark(mark)}, path, _use_new_zipfile_serialization=request.param == "torch")
    return path.read_bytes()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XBENCH_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def plant(path: Path, planted: bytes, size: int | None = None) -> None:
    """Put it in the place of a file, of the same size if one is given, with another time."""
    path.write_bytes(planted if size is None else (planted * (size // len(planted) + 1))[:size])
    os.utime(path, (1, 1))


def test_the_pickles_would_leave_a_mark(planted, mark):
    path = mark.with_name("planted")
    for read in (partial(torch.load, weights_only=False), partial(np.load, allow_pickle=True)):
        with suppress(Exception):
            read(path)
    assert mark.exists()


@pytest.mark.parametrize("name", ["pixels.u8", "index.json"])
def test_of_decoded_images(cache, planted, mark, name):
    data = cache_jobs.build()
    path = data.pixels_path.with_name(name)
    for size in (None, path.stat().st_size):
        plant(path, planted, size)
        with cache_jobs.build().reader(1) as reader:
            assert np.array_equal(reader.read([3])[0], cache_jobs.pixels(3))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["values", "present", "index.json"])
def test_of_features(cache, planted, mark, name):
    cache_jobs.fill(cache)
    path = cache_jobs.features(cache).folder / name
    FeatureFile.find(path.parent)
    for size in (None, path.stat().st_size):
        plant(path, planted, size)
        os.utime(path.with_name("values"), (2, 2))
        cache_jobs.fill(cache)
        with cache_jobs.features(cache).reader(1) as reader:
            assert np.array_equal(reader.read([3]), cache_jobs.value(3))
    assert not mark.exists()


def test_of_remembered_hashes(cache, planted, mark, tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    os.utime(tmp_path / "file", (1, 1))
    examples = [Example("file", 0, "train", path=tmp_path / "file")]
    hashes = content_hashes(examples)
    (stamps,) = (cache / "measurements/file hashes").iterdir()
    plant(stamps, planted)
    assert not are_known(examples)
    assert content_hashes(examples) == hashes
    assert are_known(examples)
    assert not mark.exists()


def test_of_what_was_found(cache, planted, mark):
    save("capacity", "key", {"found": 1})
    (entry,) = (cache / "measurements/capacity").iterdir()
    plant(entry, planted)
    assert load("capacity", "key") is None
    assert not mark.exists()


def test_of_weights(planted, mark):
    with pytest.raises(XbenchError):
        read_weights(mark.with_name("planted"))
    assert not mark.exists()
