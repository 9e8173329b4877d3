"""One cell: from its settings to its weights, its trace and its scores."""
