"""Import the libraries that every child needs, in the fork server before it forks.

The garbage collector is disabled meanwhile, because it would repeatedly scan hundreds of thousands of objects
that stay. Then they are frozen, so that children do not scan them either. The few megabytes of garbage among
them are kept: if they were freed, they would leave holes in the heap, which children could fill without it
showing in their memory.
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
    """Print an exception, unless a child got no job because its parent was interrupted or killed."""
    if not issubclass(kind, EOFError | pickle.UnpicklingError):
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = _report
