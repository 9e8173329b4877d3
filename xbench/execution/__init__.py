"""Run planned cells one by one, each in a process of its own, and write down how each ended."""
