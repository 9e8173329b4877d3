"""Pinned buffers are used in turn, and none is overwritten before the device has taken what is in it."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from xbench.training.pinned import PinnedBuffers

CAPACITY = 4


class Event:
    """Writes down what happens to it."""

    made: list[Event]

    def __init__(self):
        self.log: list[str] = []
        self.made.append(self)

    def record(self, stream) -> None:
        self.log.append("record")

    def synchronize(self) -> None:
        self.log.append("wait")


@pytest.fixture
def events(monkeypatch):
    """Of a machine without CUDA, where memory cannot be pinned."""
    Event.made = []
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "stream")
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    return Event.made


@pytest.fixture
def buffers(events):
    # A device on which nothing is computed: what is sent there is a tensor of its own.
    return PinnedBuffers(np.empty((CAPACITY, 2), dtype=np.int16), torch.device("meta"))


def fill(log, value, array):
    log.append((array.ctypes.data, len(array)))
    array[:] = value


def test_each_waits_for_its_own_last_use_alone(buffers, events):
    filled = []
    for turn in range(7):
        buffers.send(3, partial(fill, filled, turn))
    assert [event.log for event in events] == [
        ["wait", "record", "wait", "record", "wait", "record"],
        ["wait", "record", "wait", "record"],
        ["wait", "record", "wait", "record"],
    ]
    places = [place for place, _ in filled]
    assert len(set(places[:3])) == 3
    assert places[3:] == places[:3] + places[:1]
    assert {count for _, count in filled} == {3}


def test_the_wait_comes_before_the_buffer_is_filled(buffers, events):
    seen = []
    for _ in range(4):
        buffers.send(1, lambda array: seen.append(events[0].log[-1]))
    assert seen == ["wait", "record", "record", "wait"]


def test_what_is_sent_has_the_shape_and_type_of_the_rows(buffers):
    sent = buffers.send(3, partial(fill, [], 1))
    assert (sent.shape, sent.dtype, sent.device.type) == ((3, 2), torch.int16, "meta")


def test_their_memory_is_counted(buffers):
    assert buffers.nbytes == 3 * CAPACITY * 2 * 2
