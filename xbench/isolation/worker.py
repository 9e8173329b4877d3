"""Start processes of a fork server that is xbench's own, and do not import the main module in them.

multiprocessing has one fork server for a whole program, whose modules are loaded once for all. In a script of
a user, that server may be in use already, or be needed for something else. It also runs the main module again
in every child, which a script without an `if __name__ == "__main__"` would not expect: it would start over.
"""

from __future__ import annotations

import io
import os
from multiprocessing import forkserver, popen_forkserver, reduction, spawn, util
from multiprocessing.context import ForkServerProcess, set_spawning_popen
from multiprocessing.forkserver import ForkServer
from typing import Any

SERVER = ForkServer()


class _Popen(popen_forkserver.Popen):
    def _launch(self, process_obj: Any) -> None:
        """Do what the base class does, with xbench's server, and without telling what the main module is."""
        told = spawn.get_preparation_data(process_obj._name)
        for key in ("init_main_from_name", "init_main_from_path"):
            told.pop(key, None)
        message = io.BytesIO()
        set_spawning_popen(self)
        try:
            reduction.dump(told, message)
            reduction.dump(process_obj, message)
        finally:
            set_spawning_popen(None)
        self.sentinel, pipe = SERVER.connect_to_new_process(self._fds)  # type: ignore[attr-defined]
        # The child takes this end for its parent: it is open as long as this process lives.
        own_end = os.dup(pipe)
        self.finalizer = util.Finalize(self, _close, (own_end, self.sentinel))
        with open(pipe, "wb", closefd=True) as file:
            file.write(message.getbuffer())
        self.pid = forkserver.read_signed(self.sentinel)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class WorkerProcess(ForkServerProcess):
    """A child of xbench's fork server, used like any `multiprocessing.Process`."""

    @staticmethod
    def _Popen(process_obj: Any) -> _Popen:
        return _Popen(process_obj)
