"""Find the largest sizes that fit into memory, and adapt cells that do not fit."""
