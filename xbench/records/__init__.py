"""Records of runs: their schema, the append-only store of a run, and aggregation over seeds."""
