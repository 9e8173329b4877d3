"""What to run: a TOML file, read with line numbers, checked, and expanded to cells."""
