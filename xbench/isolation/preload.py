"""What the fork server imports, and all that it does. Every child starts with it.

The garbage collector stands still meanwhile: it would look again and again at hundreds of thousands of
objects that stay. Then they are frozen, so that no child looks at them either. The few megabytes of garbage
among them stay, too: freed, they would be holes in the heap, which children fill without it showing in their
memory.
"""

from __future__ import annotations

import gc
import pickle
import sys
from types import TracebackType

gc.disable()

import filelock  # noqa: E402, F401 -- for scratch folders
import pydantic.main  # noqa: E402, F401 -- for settings and records
import torch  # noqa: E402, F401
import torchvision  # noqa: E402, F401

gc.freeze()
gc.enable()


def _report(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Say nothing of a child whose parent was interrupted or killed before it had said what is to be done."""
    if not issubclass(kind, EOFError | pickle.UnpicklingError):
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = _report
