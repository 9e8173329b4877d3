"""Scripts of users, run as they would run them: in a process and a folder of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# A model, an optimizer, and a suite of them that trains in a second.
PARTS = """
import torch
from torch import nn
import xbench

def tiny(num_classes, width=2):
    return nn.Sequential(nn.Conv2d(3, width, 3, stride=4), nn.Flatten(), nn.LazyLinear(num_classes))

SUITE = {
    "suite": {"name": "mine"},
    "experiment": [
        {
            "name": "mine",
            "model": "tiny",
            "dataset": {"name": "synthetic-xray", "train": 20, "test": 10, "image_size": 16},
            "epochs": 1,
            "batch_size": 8,
            "optimizer": [{"name": "sgd", "lr": 0.01}],
        }
    ],
}
xbench.register_model("tiny", tiny)
"""


class Python:
    """Runs code of users, with a cache of its own.

    Args:
        cache: xbench's cache folder.
    """

    def __init__(self, cache: Path):
        kept = {key: value for key, value in os.environ.items() if key != "XBENCH_CHEST_XRAY_ROOT"}
        self.environment = {**kept, "XBENCH_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"}

    def __call__(self, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the interpreter in a folder to its end, which has to be a success."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done

    def start(self, folder: Path, *arguments: str) -> subprocess.Popen[str]:
        """Start the interpreter in a folder, as a process group of its own."""
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def script(self, folder: Path, code: str) -> subprocess.CompletedProcess[str]:
        """Run code as `script.py`, without an `if __name__ == "__main__"`."""
        (folder / "script.py").write_text(code, encoding="utf-8")
        return self(folder, "script.py")
