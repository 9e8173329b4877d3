"""Suites: TOML files that are read, checked and expanded into cells."""
