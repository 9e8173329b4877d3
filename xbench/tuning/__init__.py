"""Choose the settings of trials: searches over spaces of settings, and their budgets. Nothing runs here."""
