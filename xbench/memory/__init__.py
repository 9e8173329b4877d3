"""Measuring and limiting memory: peaks of each step, hard limits, and what counts as out of memory."""
