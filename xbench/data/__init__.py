"""The one data path: images are decoded once to a flat uint8 file in the cache, shared by every cell through
the page cache, and read from it by position."""
