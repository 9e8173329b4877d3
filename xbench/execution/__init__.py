"""Run planned cells one at a time, each in its own process, and record how each ended."""
