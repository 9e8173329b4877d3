"""Many cells: planned and checked whole, then run one by one, each in a process of its own."""
