"""xbench from Python: `xbench.run`, `xbench.probe`, `xbench.load` and `xbench.Results`."""
