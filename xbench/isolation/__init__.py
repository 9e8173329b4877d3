"""A child process for every piece of work that may fail: started from a fork server that has torch loaded,
heard through a pipe, and, however it ends, turned into an `ChildResult`."""
