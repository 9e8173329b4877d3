"""Import the code of xbench that trains and measures a cell, for the fork server.

Every child would otherwise import it again, which takes longer than a short cell's training. No component is
imported: what an import of one does to the process must not reach cells that do not use it.

As in `isolation.preload`, the garbage collector is disabled meanwhile, and the new objects are frozen.
"""

from __future__ import annotations

import gc

gc.disable()

from xbench.components.code import own_stamp  # noqa: E402
from xbench.training import cell, memory_pass, micro_batches, state_dicts, trial  # noqa: E402, F401

gc.freeze()
gc.enable()

# The stamp of the files that were imported here. They may change while the server lives.
LOADED_CODE = own_stamp.__wrapped__()  # not the cached one, which children compare with it
