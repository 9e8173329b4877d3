"""What people look at, read from the records alone."""
