"""From a declared suite to cells on this machine: everything that is checked and known before one runs."""
