"""Memory: peaks of each step, hard limits, and the classification of out-of-memory errors."""
