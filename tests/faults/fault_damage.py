"""Damage between runs: to records, traces, checkpoints and caches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.faults.fault_scene import Scene


@dataclass(frozen=True)
class Damage:
    """Something that happens to files.

    Attributes:
        files: of which one is damaged.
        hurt: what is done to its content.
    """

    name: str
    files: Callable[[Scene], list[Path]]
    hurt: Callable[[bytes, Random], bytes]

    def found(self, scene: Scene) -> list[Path]:
        """The files that are there to be damaged. A run may be at work among them."""
        try:
            return sorted(path for path in self.files(scene) if path.is_file() and path.stat().st_size)
        except FileNotFoundError:
            return []

    def do(self, scene: Scene, random: Random) -> Path | None:
        """Damage a file, and name it; None if there is none."""
        files = self.found(scene)
        if not files:
            return None
        path = random.choice(files)
        # As a new file: a checkpoint and the weights in use are two names of one.
        content = self.hurt(path.read_bytes(), random)
        path.unlink()
        path.write_bytes(content)
        return path


def _flip(content: bytes, random: Random) -> bytes:
    """One bit: the highest of a byte, which no text of the records has."""
    place = random.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 0x80]) + content[place + 1 :]


def _cut(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content))]


def _garbage(content: bytes, random: Random) -> bytes:
    lines = content.splitlines(keepends=True)
    lines.insert(random.randint(0, len(lines)), random.randbytes(40).replace(b"\n", b"") + b"\n")
    return b"".join(lines)


def _in_run(pattern: str) -> Callable[[Scene], list[Path]]:
    return lambda scene: list(scene.run.glob(pattern)) if scene.run else []


def _in_cache(scene: Scene) -> list[Path]:
    return list((scene.scratch / "cache").rglob("*"))


RECORDS, RUN, CHECKPOINT = "cells.jsonl", "run.json", "checkpoints/*/step-*/*"
TRACE, OUTPUTS = "traces/*.parquet", "outputs/*.parquet"

DAMAGE = (
    *(
        Damage(f"{name} {what}", _in_run(pattern), hurt)
        for name, pattern in {
            "records": RECORDS,
            "run.json": RUN,
            "a trace": TRACE,
            "outputs": OUTPUTS,
            "a checkpoint": CHECKPOINT,
        }.items()
        for what, hurt in {"flipped": _flip, "cut": _cut}.items()
    ),
    Damage("garbage in records", _in_run(RECORDS), _garbage),
    Damage("cache flipped", _in_cache, _flip),
    Damage("cache cut", _in_cache, _cut),
)
