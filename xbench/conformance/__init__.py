"""Checks that a component keeps to the plugin contract. Each runs in a child process."""
