"""Plan a run: turn a declared suite into checked cells on this machine, before any of them runs."""
