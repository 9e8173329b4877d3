"""Atomic writes, locks, staging folders, the cache of measurements, and downloads."""
