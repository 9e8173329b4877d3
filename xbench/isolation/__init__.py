"""Child processes for all work that may fail: forked from a server that has torch loaded, heard through a
pipe, and turned into a `ChildResult` however they end."""
