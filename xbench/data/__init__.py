"""Decode images once to a flat uint8 file in the cache, which all cells share through the page cache and read
by position."""
