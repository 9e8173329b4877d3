# %% [markdown]
# # What fits into memory, and what does a step cost?
#
# Open this file as a notebook in an editor that knows `# %%` cells, or run it with
# `python examples/notebook_capacity.py [FOLDER]`. It makes its own images and takes less than a minute.

# %%
import sys

from torch import nn

import xbench

out = sys.argv[1] if len(sys.argv) > 1 else "results"


def wide(num_classes: int, width: int = 16) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.Tanh(), nn.Linear(width, num_classes))


xbench.register_model("wide", wide)

# %% [markdown]
# Compare two memories of L-BFGS, with the whole training set as one batch.

# %%
results = xbench.run(
    {
        "suite": {"name": "notebook"},
        "experiment": [
            {
                "name": "histories",
                "model": "wide",
                "dataset": {"name": "synthetic-xray", "train": 40, "test": 20, "image_size": 32},
                "epochs": 2,
                "batch_size": "full",
                "optimizer": {"name": "lbfgs", "history_size": [2, 8]},
            }
        ],
    },
    out=out,
)
results

# %%
results.cells[["column", "status", "test_accuracy", "training_s", "optimizer_state_bytes"]]

# %% [markdown]
# The loss of each step, before its update.

# %%
print(results.steps.pivot(index="step", columns="column", values="loss"))

# %% [markdown]
# The largest history that fits into the memory that this machine allows is found by running it:
# `xbench.probe("lbfgs", "wide", axes="history-size")`. The next cell lists what an earlier run has left.

# %%
print(xbench.load("notebook", out=out))
