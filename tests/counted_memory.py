"""Stands in for a meter of memory, in which only a test allocates."""

from __future__ import annotations


class CountedMemory:
    """A meter that knows what it was told.

    Args:
        held: bytes that are allocated from the beginning.
    """

    def __init__(self, held: int = 0):
        self.held = self.peak = held

    def take(self, amount: int) -> None:
        self.held += amount
        self.peak = max(self.peak, self.held)

    def give(self, amount: int) -> None:
        self.held -= amount

    def reset(self) -> None:
        self.peak = self.held

    def peak_bytes(self) -> int:
        return self.peak

    def now_bytes(self) -> int:
        return self.held
